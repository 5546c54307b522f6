//! The third gate: the logical plan holds only the nodes, functions and tables that we allow.
//!
//! It would still refuse if the syntax walk missed something, because it looks at what will run and not at what was written.

use super::functions::FUNCTIONS;
use super::{Checked, SqlRefusal, check, names, session};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion::sql::sqlparser::tokenizer::Location;

/// [`super::check()`], then planning over the empty tables and the plan gate: everything that can be refused without running.
///
/// # Errors
/// The first thing that is not accepted, also unknown columns and types that do not fit.
pub fn check_plan(sql: &str) -> Result<Checked, SqlRefusal> {
    let sql = sql.to_owned();
    check::on_large_stack(move || {
        let checked = check::check_here(&sql)?;
        let state = session::over_empty_tables().map_err(|error| refusal(&error))?;
        let plan = session::block_on(session::plan(&state, &checked)).map_err(|error| refusal(&error))?;
        gate(&plan)?;
        // The optimizer checks types and functions that planning leaves open.
        state.optimize(&plan).map_err(|error| refusal(&error))?;
        Ok(checked)
    })
}

/// Walks a plan as the planner made it, before optimizers rewrite it.
pub(crate) fn gate(plan: &LogicalPlan) -> Result<(), SqlRefusal> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let Some(what) = not_ours(node) {
            refused = Some(what);
            return Ok(TreeNodeRecursion::Stop);
        }
        node.apply_expressions(|expr| {
            expr.apply(|inner| match expr_not_ours(inner) {
                None => Ok(TreeNodeRecursion::Continue),
                Some(what) => {
                    refused = Some(what);
                    Ok(TreeNodeRecursion::Stop)
                }
            })
        })
    });
    match (refused, walked) {
        (Some(what), _) => {
            Err(SqlRefusal::whole(format!("{what} is not accepted in a plan"), "use plain SELECT syntax"))
        }
        (None, Err(error)) => Err(refusal(&error)),
        (None, Ok(_)) => Ok(()),
    }
}

/// What a node is, unless it is allowed. No wildcard: a new node kind must be decided.
fn not_ours(plan: &LogicalPlan) -> Option<String> {
    let what = match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_) => return None,
        LogicalPlan::TableScan(scan) => {
            let table = scan.table_name.table();
            return names::table(table).is_none().then(|| format!("a scan of {table}"));
        }
        LogicalPlan::Statement(_) => "a statement",
        LogicalPlan::Explain(_) => "EXPLAIN",
        LogicalPlan::Analyze(_) => "EXPLAIN ANALYZE",
        LogicalPlan::Extension(_) => "an extension",
        LogicalPlan::Dml(_) => "a change of rows",
        LogicalPlan::Ddl(_) => "a change of tables",
        LogicalPlan::Copy(_) => "COPY",
        LogicalPlan::DescribeTable(_) => "DESCRIBE",
        LogicalPlan::Unnest(_) => "UNNEST",
        LogicalPlan::RecursiveQuery(_) => "a recursive query",
    };
    Some(what.to_owned())
}

/// What an expression is, unless it is allowed. No wildcard: a new kind must be decided.
#[expect(deprecated, reason = "the wildcard variant still exists and must be named to be decided")]
fn expr_not_ours(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::Literal(..)
        | Expr::BinaryExpr(_)
        | Expr::Like(_)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_)
        | Expr::InList(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::ScalarSubquery(_)
        | Expr::Placeholder(_)
        | Expr::OuterReferenceColumn(..) => None,
        Expr::ScalarFunction(call) => {
            (!FUNCTIONS.has_scalar(call.name())).then(|| format!("the function {}", call.name()))
        }
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            (!FUNCTIONS.has_aggregate(name)).then(|| format!("the aggregate {name}"))
        }
        Expr::WindowFunction(call) => {
            let name = match &call.fun {
                WindowFunctionDefinition::AggregateUDF(udf) => udf.name(),
                WindowFunctionDefinition::WindowUDF(udf) => udf.name(),
            };
            (!FUNCTIONS.has_window(name)).then(|| format!("the window function {name}"))
        }
        Expr::ScalarVariable(..) => Some("a variable".to_owned()),
        Expr::SimilarTo(_) => Some("SIMILAR TO".to_owned()),
        Expr::SetComparison(_) => Some("ANY or ALL".to_owned()),
        Expr::Wildcard { .. } => Some("*".to_owned()),
        Expr::GroupingSet(_) => Some("a grouping set".to_owned()),
        Expr::Unnest(_) => Some("UNNEST".to_owned()),
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => Some("a lambda".to_owned()),
    }
}

/// What the planner said, with its place and the nearest name where it knows them.
pub(crate) fn refusal(error: &DataFusionError) -> SqlRefusal {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let at = span
        .map_or(Location { line: 0, column: 0 }, |span| Location { line: span.start.line, column: span.start.column });
    let (message, hint) = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => schema_words(schema),
        root => (first_line(&root.message()), "compare the types of the columns; CAST converts".to_owned()),
    };
    SqlRefusal::at(at, message, hint)
}

fn schema_words(error: &SchemaError) -> (String, String) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = valid_fields.iter().map(|column| column.name.as_str());
            let hint = names::nearest(&field.name, known).map_or_else(
                || "look at SELECT * FROM the table LIMIT 1".to_owned(),
                |name| format!("did you mean {name}?"),
            );
            (format!("there is no column {}", field.flat_name()), hint)
        }
        SchemaError::AmbiguousReference { field } => {
            (format!("the column {} is in more than one table", field.name), "write table.column".to_owned())
        }
        SchemaError::DuplicateQualifiedField { qualifier: _, name }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            (format!("two columns are called {name}"), "give one of them an alias".to_owned())
        }
    }
}

/// The planner adds candidates and back traces in further lines.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("it does not plan").to_owned()
}
