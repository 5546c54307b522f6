//! DataFusion set up with nothing but our tables and functions: no catalog of its own, no information_schema, no table
//! functions, no file formats, no URLs as tables, no disk but the scratch directory.

use super::absent::Absent;
use super::allowance::Allowance;
use super::coerce::Coerce;
use super::functions::{FUNCTIONS, Operators};
use super::settle::Settle;
use super::tables::{Readers, TABLES, table_columns};
use super::{Checked, QueryError, SqlRefusal, check, members, once, plan};
use crate::schema::read_schema;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemTable, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::common::config::SpillCompression;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What a sort sets aside for merging, in bytes: a batch of each of some ten spilled files.
const MERGE_BYTES: usize = 10 * 1024 * 1024;
const CATALOG: &str = "daemoneye";
const SCHEMA: &str = "public";

/// How large the batches are that a plan sorts.
pub(crate) struct Batches {
    pub(crate) cells: usize,
    pub(crate) rows: RangeInclusive<usize>,
}

/// Cells: some 1 MiB. A merge holds four batches of each spilled file, and with few files at a time it writes all rows again and again.
/// Rows: with half of the least, a sort of all columns takes longer than with more files.
pub(crate) const SORTED: Batches = Batches { cells: 64 * 1024, rows: 1024..=usize::MAX };

/// A session with these tables and nothing else.
pub(crate) fn with_tables(
    tables: Vec<(&str, Arc<dyn TableProvider>)>,
    runtime: Arc<RuntimeEnv>,
    allowance: Arc<Allowance>,
) -> Result<SessionState> {
    let schema = MemorySchemaProvider::new();
    for (name, table) in tables {
        schema.register_table(name.to_owned(), table)?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, Arc::new(schema))?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Operators)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    let mut state = SessionStateBuilder::new()
        .with_config(config(&runtime))
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(catalogs))
        .with_expr_planners(planners)
        .with_analyzer_rules(vec![Arc::new(Coerce::new()), Arc::new(Absent), Arc::new(Settle { allowance })])
        .with_optimizer_rules(members::rules())
        .with_physical_optimizer_rules(once::rules())
        .with_scalar_functions(FUNCTIONS.scalar.clone())
        .with_aggregate_functions(FUNCTIONS.aggregate.clone())
        .with_window_functions(FUNCTIONS.window.clone())
        .build();
    // `now()` is one instant for the whole statement.
    let options = Arc::clone(state.config_options());
    state.execution_props_mut().mark_start_execution(options);
    Ok(state)
}

fn config(runtime: &RuntimeEnv) -> SessionConfig {
    // Until [`spread`] says otherwise.
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    // Set aside by each sort for merging what it has spilled: a small pool must have room for two of them and for rows.
    let pool = match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes,
        MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
    };
    options.execution.sort_spill_reservation_bytes = MERGE_BYTES.min(pool / 8);
    // What is spilled takes a tenth to a fifteenth of the disk, and no longer: sorted text repeats itself.
    options.execution.spill_compression = SpillCompression::Zstd;
    // One sort for all inputs: each of several would hold its share of the pool while their rows are merged.
    options.optimizer.repartition_sorts = false;
    // Files are cut where that pays; rows that come from one place are not worth handing around.
    options.optimizer.enable_round_robin_repartition = false;
    // By us: here the readers of a lookup would become one again.
    options.optimizer.repartition_file_scans = false;
    options.execution.time_zone = Some("UTC".to_owned());
    // Each scan says for itself: here it would be for all of them.
    options.execution.parquet.pushdown_filters = false;
    options.execution.parquet.reorder_filters = true;
    options.sql_parser.collect_spans = true;
    // As SQLite and osquery have it, so that `ORDER BY n DESC LIMIT 3` gives the three largest and not three NULLs.
    options.sql_parser.default_null_ordering = "nulls_min".to_owned();
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

/// The plan of a checked statement, not yet gated.
pub(crate) async fn plan(state: &SessionState, checked: &Checked) -> Result<LogicalPlan> {
    let statement = ast::Statement::Query(Box::new(checked.query.clone()));
    state.statement_to_plan(Statement::Statement(Box::new(statement))).await
}

/// Lets a plan that gathers rows before it hands them on work on several threads. One that does not is as fast as its reader, and
/// its rows leave in the order in which they lie in the files. Whether it was changed.
pub(crate) fn spread(state: &mut SessionState, plan: &LogicalPlan, threads: usize) -> bool {
    let gathers = |node: &LogicalPlan| {
        let gathers = matches!(
            node,
            LogicalPlan::Aggregate(_)
                | LogicalPlan::Distinct(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Window(_)
        );
        Ok(gathers)
    };
    let spread = threads > 1 && plan.exists(gathers).unwrap_or(false);
    if spread {
        state.config_mut().options_mut().execution.target_partitions = threads;
    }
    state.config_mut().set_extension(Arc::new(Readers(threads)));
    spread
}

/// Lets the optimizer walk once over the plan of one SELECT from one table: all that it knows to do there it does the first time,
/// and of a lookup's four milliseconds planning takes nearly two.
pub(crate) fn hasten(state: &mut SessionState, plan: &LogicalPlan) {
    let (mut tables, mut selects) = (0, 0);
    let counted = plan.apply_with_subqueries(|node| {
        tables += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        selects += usize::from(matches!(node, LogicalPlan::Projection(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    if counted.is_ok() && tables <= 1 && selects <= 1 {
        state.config_mut().options_mut().optimizer.max_passes = 1;
    }
}

/// Lets a plan that sorts many columns work on batches of fewer rows. A sort makes batches of that size of each larger one that comes,
/// and pays for all text of the larger one with each of them.
pub(crate) fn narrow(
    state: &mut SessionState,
    plan: Arc<dyn ExecutionPlan>,
    sorted: &Batches,
) -> Result<Arc<dyn ExecutionPlan>> {
    let rows = sorted.cells.checked_div(sorted_columns(plan.as_ref())).unwrap_or(usize::MAX);
    let config = state.config_mut();
    let rows = rows.clamp(*sorted.rows.start(), *sorted.rows.end()).min(config.batch_size());
    *config = config.clone().with_batch_size(rows);
    // Filters gather rows of several batches, as many as were usual when they were planned.
    plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
        Some(filter) if filter.batch_size() > rows => {
            let filter: Arc<dyn ExecutionPlan> = Arc::new(filter.with_batch_size(rows)?);
            Ok(Transformed::yes(filter))
        }
        _ => Ok(Transformed::no(node)),
    })
    .data()
}

/// The most columns that a sort of all its rows has.
fn sorted_columns(plan: &dyn ExecutionPlan) -> usize {
    let sorts = plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.fetch().is_none());
    let own = if sorts { plan.schema().fields().len() } else { 0 };
    plan.children().into_iter().fold(own, |most, input| most.max(sorted_columns(input.as_ref())))
}

/// A session whose tables have columns and no rows.
pub(crate) fn over_empty_tables() -> Result<SessionState> {
    let mut tables: Vec<(&str, Arc<dyn TableProvider>)> = Vec::new();
    for name in TABLES.iter() {
        if let Some(columns) = read_schema(name) {
            tables.push((name, Arc::new(EmptyTable::new(columns))));
        }
    }
    with_tables(tables, Arc::new(RuntimeEnv::default()), Allowance::alone())
}

/// Runs a future to its end on this thread; planning waits for nothing outside.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(future)
}

/// Runs a checked statement over given rows of one table, without a store: the oracle for compiled rules.
///
/// # Errors
/// When it does not plan over that table's columns, or fails on the rows.
pub fn evaluate(checked: &Checked, table: &str, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, QueryError> {
    let Some(columns) = table_columns(table) else {
        return Err(QueryError::Planning(SqlRefusal::whole(format!("there is no table {table}"), "")));
    };
    check::on_large_stack(move || {
        let planned = over_rows(table, columns, rows);
        Ok(planned.and_then(|state| {
            let plan = block_on(plan(&state, checked))
                .map_err(|error| QueryError::Planning(plan::refusal(&error, checked.query())))?;
            plan::gate(&plan, checked.query()).map_err(QueryError::Planning)?;
            block_on(async {
                let physical = state.create_physical_plan(&plan).await?;
                collect(physical, state.task_ctx()).await
            })
            .map_err(|error| QueryError::Execution(error.to_string()))
        }))
    })
    .map_err(QueryError::Planning)?
}

fn over_rows(table: &str, columns: SchemaRef, rows: Vec<RecordBatch>) -> Result<SessionState, QueryError> {
    let execution = |error: DataFusionError| QueryError::Execution(error.to_string());
    let provider = MemTable::try_new(columns, vec![rows]).map_err(execution)?;
    with_tables(vec![(table, Arc::new(provider))], Arc::new(RuntimeEnv::default()), Allowance::alone())
        .map_err(execution)
}
