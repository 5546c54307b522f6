//! From a window rule's SELECT to a plan that is made once and run again and again over the rows kept for it.
//!
//! The guard and the plan gate have passed the text as it was written; here the scans get tables of their own, `now()` becomes
//! the time that events have reached, and the numbers of the events are carried to the answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{FunctionRegistry as _, TaskContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableType, Volatility,
};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::sql::sqlparser::ast::{SetExpr, Spanned as _};
use tokio_util::sync::CancellationToken;

use super::super::compile::{self, Problem};
use super::super::matcher::Test;
use super::RULE_ROWS;
use super::bounds::Reach;
use super::kind::{decided_by, grows};
use super::perils::{Peril, peril};
use super::provenance::{self, PREFIX};
use super::shape::{MAX_SCANS, Shape, table_name};
use super::threshold::Threshold;
use crate::schema::{TIME_ZONE, process_events_schema};
use crate::sql::window::{Allowance, Batches, block_on, gated, made_rows, plan, refusal, with_tables};
use crate::sql::{Checked, on_large_stack};

/// Working memory of one run in bytes: the rows kept for a rule several times over.
const RUN_BYTES: usize = 64 * 1024 * 1024;
/// Kept beside the columns that the plan reads: what an alert says about its event.
const FACE: &[&str] = &[
    "time",
    "event_type",
    "entity_id",
    "pid",
    "ppid",
    "name",
    "executable_path",
    "command_line",
    "user",
    "collector",
    "epoch",
    "seq",
];

/// Plans run one at a time on a thread each, so they share one pool.
static RUNTIME: LazyLock<Arc<RuntimeEnv>> = LazyLock::new(|| {
    let built = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(RUN_BYTES)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc();
    built.unwrap_or_default()
});

/// Which scans of a rule take a row, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scans(u16);

// A bit for each.
const _: () = assert!(MAX_SCANS <= u16::BITS as usize);

impl Scans {
    pub(super) fn only(scan: usize) -> Self {
        Self(u32::try_from(scan).ok().and_then(|scan| 1_u16.checked_shl(scan)).unwrap_or(0))
    }

    pub(super) fn has(self, scan: usize) -> bool {
        self.0 & Self::only(scan).0 != 0
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One scan as it runs.
#[derive(Debug)]
pub(in crate::detect) struct Scan {
    /// What the row matcher knows of its conditions.
    pub(super) condition: Test,
    /// The row matcher knows all of its conditions.
    whole: bool,
    pub(super) absent: bool,
    /// Where it has nothing, the rule finds nothing.
    pub(super) needed: bool,
    pub(super) reach: Reach,
}

/// A window rule ready to run.
#[derive(Debug)]
pub(in crate::detect) struct Planned {
    pub(super) scans: Vec<Scan>,
    /// The columns that its answer depends on, by place in the column table: without one of them it cannot decide.
    pub(in crate::detect) asked: BTreeSet<usize>,
    /// Those of a kept row.
    pub(in crate::detect) kept: BTreeSet<usize>,
    /// What the file says bounds the scans that the SELECT does not.
    pub(in crate::detect) window_us: Option<i64>,
    pub(in crate::detect) sees_forks: bool,
    /// Something is found where a scan has nothing, so it is decided when the wait is over.
    pub(super) awaits: bool,
    /// A further event takes nothing from what is found.
    pub(super) grows: bool,
    /// What each group has at least that it finds, if it counts rows of one scan.
    pub(super) threshold: Option<Threshold>,
    /// How many columns of the answer number the events; they come last.
    pub(super) numbers: usize,
    /// The columns by which the SELECT groups, if it does.
    groups: Option<Vec<String>>,
    /// The columns of the answer.
    pub(super) outputs: Vec<String>,
    pub(super) physical: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
    pub(super) allowance: Arc<Allowance>,
    input: Arc<Input>,
}

impl Planned {
    /// Plans a checked SELECT. `window_us` bounds the scans that the SELECT does not; the columns `dedup` are kept too.
    pub(in crate::detect) fn of(checked: &Checked, window_us: Option<i64>, dedup: &[String]) -> Result<Self, Problem> {
        on_large_stack(|| Ok(planned(checked, window_us, dedup))).map_err(Problem::from)?
    }

    /// Whether a SELECT says how far back it looks, as far as that can be told without a plan.
    pub(in crate::detect) fn bounded(checked: &Checked) -> Result<(), Problem> {
        let Ok(shape) = Shape::of(checked.query().clone()) else { return Ok(()) };
        shape.bounds.reach(&shape.scans, shape.gathers, None).map(drop)
    }

    /// Whether the SELECT returns a column of that name.
    pub(in crate::detect) fn returns(&self, column: &str) -> bool {
        self.outputs.iter().any(|output| output == column)
    }

    /// The columns that tell its matches apart when the file names none: what it groups by, or for one group of everything a
    /// name that has one value. A SELECT without groups tells them apart by their events.
    pub(in crate::detect) fn identity(&self) -> Vec<String> {
        match &self.groups {
            Some(groups) if groups.is_empty() => vec!["rule".to_owned()],
            Some(groups) => groups.clone(),
            None => Vec::new(),
        }
    }

    /// What each place where it reads events takes of them.
    pub(in crate::detect) fn conditions(&self) -> impl Iterator<Item = &Test> {
        self.scans.iter().map(|scan| &scan.condition)
    }

    /// Whether something may begin to be true with a row that these scans take.
    pub(super) fn begins_with(&self, scans: Scans) -> bool {
        self.scans.iter().enumerate().any(|(at, scan)| !scan.absent && scans.has(at))
    }

    /// How far back rows are kept, in µs.
    pub(in crate::detect) fn back_us(&self) -> i64 {
        self.scans.iter().map(|scan| scan.reach.back_us).max().unwrap_or(0)
    }

    /// How long the latest of its decisions waits, in µs.
    pub(in crate::detect) fn wait_us(&self) -> i64 {
        self.scans.iter().map(|scan| scan.reach.wait_us).max().unwrap_or(0)
    }

    /// The rows of the next run, by scan, and its `now()`.
    pub(super) fn feed(&self, rows: Vec<Vec<RecordBatch>>, now_us: i64) {
        *self.input.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
        self.input.now_us.store(now_us, Ordering::Relaxed);
    }
}

fn planned(checked: &Checked, window_us: Option<i64>, dedup: &[String]) -> Result<Planned, Problem> {
    gated(checked)?;
    let decided_by = decided_by(checked.query());
    let shape = Shape::of(checked.query().clone())?;
    let reach = shape.bounds.reach(&shape.scans, shape.gathers, window_us)?;
    let input = Arc::new(Input { rows: Mutex::default(), now_us: AtomicI64::new(0), read: Mutex::default() });
    let scans: Vec<Scan> =
        shape.scans.iter().zip(reach).map(|(scan, reach)| compiled(scan, shape.fills, reach)).collect();
    let rewritten = Checked { query: shape.query, ..checked.clone() };
    let made = physical(&rewritten, scans.len(), &input);
    let made = made.map_err(|error| Problem::from(refusal(&error, checked.query())))?;
    let Made { physical, context, allowance, numbers, peril } = made;
    if let Some(Peril { what, hint }) = peril {
        return Err(Problem::of(checked.query(), what).hint(hint));
    }
    if shape.groups.as_ref().is_some_and(Vec::is_empty) {
        found_without_events(checked, &physical, &context)?;
    }
    let read = std::mem::take(&mut *input.read.lock().unwrap_or_else(PoisonError::into_inner));
    let decides = |at: &usize| PROCESS_EVENTS.get(*at).is_some_and(|column| decided_by.contains(column.name));
    let (awaits, grows) = (scans.iter().any(|scan| scan.absent), grows(checked.query()) && !shape.ages);
    let threshold = threshold(checked, &scans, shape.filters, grows);
    if threshold.as_ref().is_some_and(|threshold| threshold.least() > RULE_ROWS) {
        let what =
            format!("the rule counts more events than the {RULE_ROWS} that are kept for it, so it would find nothing");
        return Err(Problem::of(checked.query(), what).hint("ask for fewer in a shorter time"));
    }
    Ok(Planned {
        kept: kept(&read, dedup, threshold.as_ref()),
        awaits,
        grows,
        threshold,
        scans,
        asked: read.into_iter().filter(decides).collect(),
        window_us,
        sees_forks: shape.sees_forks,
        numbers,
        groups: shape.groups,
        outputs: outputs(&physical, numbers, checked)?,
        physical,
        context,
        allowance,
        input,
    })
}

/// The names of the answer's columns; one that stands twice would lose a value in the alert.
fn outputs(physical: &Arc<dyn ExecutionPlan>, numbers: usize, checked: &Checked) -> Result<Vec<String>, Problem> {
    let schema = physical.schema();
    let answer = schema.fields().len().saturating_sub(numbers);
    let outputs: Vec<String> = schema.fields().iter().take(answer).map(|field| field.name().clone()).collect();
    for (at, name) in outputs.iter().enumerate() {
        if outputs.iter().skip(at + 1).any(|other| other == name) {
            return Err(Problem::at(checked.query().span().start, format!("the rule returns {name} twice"))
                .hint("give one of them an alias"));
        }
    }
    Ok(outputs)
}

/// Conditions that the row matcher does not know are left to the plan.
fn compiled(scan: &super::shape::Scan, fills: bool, reach: Reach) -> Scan {
    let known = scan.conditions.iter().filter_map(|condition| compile::condition(condition, &scan.alias).ok());
    let known: Vec<Test> = known.collect();
    let needed = !(fills || scan.absent || scan.aside);
    let whole = known.len() == scan.conditions.len();
    Scan { condition: Test::All(known), whole, absent: scan.absent, needed, reach }
}

/// `filters`: the plan filters by more than its scans do.
fn threshold(checked: &Checked, scans: &[Scan], filters: bool, grows: bool) -> Option<Threshold> {
    let [scan] = scans else { return None };
    let threshold = Threshold::of(checked.query()).filter(|_| !scan.absent)?;
    let whole = threshold.whole && scan.whole && grows && !filters;
    Some(Threshold { whole, grows, back_us: scan.reach.back_us, ..threshold })
}

fn kept(read: &BTreeSet<usize>, dedup: &[String], threshold: Option<&Threshold>) -> BTreeSet<usize> {
    let names = FACE.iter().copied().chain(dedup.iter().map(String::as_str));
    let named = names.filter_map(|name| PROCESS_EVENTS.iter().position(|column| column.name == name));
    let counted = threshold.into_iter().flat_map(Threshold::columns);
    read.iter().copied().chain(named).chain(counted).collect()
}

struct Made {
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    allowance: Arc<Allowance>,
    numbers: usize,
    peril: Option<Peril>,
}

/// An answer is raised with the events that it was made of, so what holds where there are none is never raised.
fn found_without_events(
    checked: &Checked,
    physical: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<(), Problem> {
    let SetExpr::Select(select) = checked.query().body.as_ref() else { return Ok(()) };
    let Some(having) = &select.having else { return Ok(()) };
    let fresh = reset_plan_states(Arc::clone(physical));
    let answer = fresh.and_then(|fresh| block_on(collect(fresh, Arc::clone(context))));
    let answer = answer.map_err(|error| Problem::from(refusal(&error, checked.query())))?;
    if answer.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(());
    }
    Err(Problem::of(having, "this holds where there is no event, and an alert is raised of events: it would never be")
        .hint("for what is absent write NOT EXISTS beside an event after which it is missed; for few of many add AND count(*) > 0"))
}

fn physical(checked: &Checked, scans: usize, input: &Arc<Input>) -> Result<Made> {
    let allowance =
        Allowance::new(CancellationToken::new(), tokio::time::Instant::now() + super::LOAD, &RUNTIME.memory_pool);
    let names: Vec<String> = (0..scans).map(table_name).collect();
    let tables = names.iter().enumerate().map(|(scan, name)| {
        let table: Arc<dyn TableProvider> =
            Arc::new(Kept { scan, schema: scan_schema(scan), input: Arc::clone(input) });
        (name.as_str(), table)
    });
    let mut state = with_tables(tables.collect(), Arc::clone(&RUNTIME), Arc::clone(&allowance))?;
    let optimizer = &mut state.config_mut().options_mut().optimizer;
    // What a run has learnt about its rows must not filter those of the next.
    optimizer.enable_dynamic_filter_pushdown = false;
    state.register_udf(Arc::new(ScalarUDF::from(Now {
        input: Arc::clone(input),
        signature: Signature::nullary(Volatility::Volatile),
    })))?;
    let (physical, numbers, peril) = block_on(async {
        let plan = plan(&state, checked).await?;
        let peril = peril(&plan)?;
        let (plan, numbers) = provenance::carried(&plan)?;
        Ok((state.create_physical_plan(&plan).await?, numbers, peril))
    })?;
    Ok(Made { physical, context: state.task_ctx(), allowance, numbers, peril })
}

fn number_field(scan: usize) -> Field {
    Field::new(format!("{PREFIX}_{scan}"), DataType::Int64, true)
}

fn scan_schema(scan: usize) -> SchemaRef {
    let events = process_events_schema();
    let fields = events.fields().iter().cloned().chain([Arc::new(number_field(scan))]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What a run reads.
#[derive(Debug)]
struct Input {
    rows: Mutex<Vec<Vec<RecordBatch>>>,
    now_us: AtomicI64,
    /// The columns that scans asked for when the plan was made.
    read: Mutex<BTreeSet<usize>>,
}

impl Input {
    fn batches(&self, scan: usize, schema: &SchemaRef) -> Batches {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).get(scan).cloned().unwrap_or_default();
        let schema = Arc::clone(schema);
        Box::new(rows.into_iter().map(move |batch| narrowed(&batch, &schema)))
    }
}

/// The columns of a kept batch that a scan hands on.
fn narrowed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let name = if field.name().starts_with(PREFIX) { PREFIX } else { field.name() };
        let column = batch.column_by_name(name).cloned();
        column.ok_or_else(|| ArrowError::SchemaError(format!("{name} was not kept")))
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
}

/// The table of one scan.
#[derive(Debug)]
struct Kept {
    scan: usize,
    schema: SchemaRef,
    input: Arc<Input>,
}

#[async_trait]
impl TableProvider for Kept {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let asked = projection.unwrap_or(&all);
        let columns = asked.iter().copied().filter(|at| *at < PROCESS_EVENTS.len());
        self.input.read.lock().unwrap_or_else(PoisonError::into_inner).extend(columns);
        let schema = Arc::new(self.schema.project(asked).map_err(DataFusionError::from)?);
        let (input, scan, columns) = (Arc::clone(&self.input), self.scan, Arc::clone(&schema));
        made_rows(schema, 0, move || input.batches(scan, &columns), None)
    }
}

/// The time that events have reached.
#[derive(Debug)]
struct Now {
    input: Arc<Input>,
    signature: Signature,
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.input, &other.input)
    }
}

impl Eq for Now {}

impl std::hash::Hash for Now {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &'static str {
        "now"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(TIME_ZONE.into())))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now_us = self.input.now_us.load(Ordering::Relaxed);
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(now_us), Some(TIME_ZONE.into()))))
    }
}
