//! The third gate: the logical plan holds only the nodes, functions and tables that we allow.
//!
//! It would still refuse if the syntax walk missed something, because it looks at what will run and not at what was written.

use super::functions::FUNCTIONS;
use super::refusal::{CAST_FAILED, spoken};
use super::{Checked, QueryError, SqlRefusal, arithmetic, check, names, patterns, session, times};
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, SchemaError, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion::sql::sqlparser::ast::{self, Query, Spanned as _, Visit as _, Visitor, visit_expressions};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::ops::ControlFlow;

/// Columns that a hint lists at most: a line of a terminal or two.
const SHOWN_COLUMNS: usize = 12;

/// What the planner says, and what to do about it: the first that fits.
const HINTS: [(&str, &str); 21] = [
    ("parsing timestamp", "write a time as '2026-01-31 12:00:00', '2026-01-31T12:00Z' or '2026-01-31'"),
    (
        "to Nanosecond",
        "write a time of the years 1678 to 2261; a comparison of a column with plain text takes all years",
    ),
    ("pattern", patterns::HINT),
    ("LIKE", "LIKE compares text: write CAST(column AS TEXT) LIKE …"),
    ("Timestamp", "compare a time with '2026-01-31 12:00:00' or datetime('now', '-1 hour')"),
    (arithmetic::DOES_NOT_FIT, "calculate with smaller numbers, or with DOUBLE"),
    ("extract(epoch", "times 1000 for milliseconds"),
    ("not support logical expression", "join the table, or ask the subquery in WHERE"),
    (
        "orrelated scalar subquery",
        "a value for each row is an aggregate without LIMIT: (SELECT max(name) … WHERE c.pid = p.ppid)",
    ),
    ("out of bounds", "a number in ORDER BY or GROUP BY counts the columns of the SELECT, from 1"),
    ("substr takes", "substr(text, 1, 3)"),
    (
        "one value and looks at the outer row",
        "for example (SELECT max(c.name) FROM processes AS c WHERE c.pid = p.ppid)",
    ),
    ("join condition", "write JOIN … ON a.x = b.x; CROSS JOIN pairs all rows"),
    ("= Binary", "0x10 and X'10' are bytes: write 16"),
    ("with position", "a number in ORDER BY or GROUP BY counts the columns of the SELECT, from 1"),
    ("SELECT DISTINCT, ORDER BY", "select the column too, or order by one that is selected"),
    ("GROUP BY", "put the column into GROUP BY, or into an aggregate such as max(column)"),
    ("more than once", "give each a name of its own"),
    ("one column", "let the subquery select one column"),
    ("Aggregate functions are not allowed", "conditions on aggregates stand in HAVING, after GROUP BY"),
    ("NTILE", "ntile(4) makes four parts: the number is at least 1"),
];

/// What to do where nothing else fits: most of what the planner refuses is of types.
const TYPES: &str = "compare the types of the columns; CAST converts";

/// [`super::check()`], then planning over the empty tables and the plan gate: everything that can be refused without running.
///
/// # Errors
/// The first thing that is not accepted, also unknown columns and types that do not fit.
pub fn check_plan(sql: &str) -> Result<Checked, SqlRefusal> {
    let sql = sql.to_owned();
    check::on_large_stack(move || {
        let checked = check::check_here(&sql)?;
        let planning = |error: DataFusionError| refusal(&error, &checked.query);
        let state = session::over_empty_tables().map_err(planning)?;
        let plan = session::block_on(session::plan(&state, &checked)).map_err(planning)?;
        gate(&plan, &checked.query)?;
        // The optimizer checks types and functions that planning leaves open.
        state.optimize(&plan).map_err(planning)?;
        Ok(checked)
    })
}

/// Walks a plan as the planner made it, before optimizers rewrite it.
pub(crate) fn gate(plan: &LogicalPlan, query: &Query) -> Result<(), SqlRefusal> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let Some(what) = not_ours(node) {
            refused = Some(what);
            return Ok(TreeNodeRecursion::Stop);
        }
        let asks = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        node.apply_expressions(|expr| {
            expr.apply(|inner| match expr_not_ours(inner).or_else(|| (!asks).then(|| asking(inner)).flatten()) {
                None => Ok(TreeNodeRecursion::Continue),
                Some(what) => {
                    refused = Some(what);
                    Ok(TreeNodeRecursion::Stop)
                }
            })
        })
    });
    match (refused, walked) {
        (Some(what), _) if what == ASKING => {
            let at = place_of_asking(query).unwrap_or(Location { line: 0, column: 0 });
            let hint = "ask it in WHERE, or LEFT JOIN the other table and look whether its column IS NOT NULL";
            Err(SqlRefusal::at(at, format!("{what} is not accepted"), hint))
        }
        (Some(what), _) => {
            let hint =
                if what.starts_with("a window") { "filter in an outer SELECT" } else { "use plain SELECT syntax" };
            Err(SqlRefusal::whole(format!("{what} is not accepted in a plan"), hint))
        }
        (None, Err(error)) => Err(refusal(&error, query)),
        (None, Ok(_)) => Ok(()),
    }
}

/// What a node is, unless it is allowed. No wildcard: a new node kind must be decided.
fn not_ours(plan: &LogicalPlan) -> Option<String> {
    let what = match plan {
        LogicalPlan::Filter(filter) if has_window(&filter.predicate) => "a window function in a condition",
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
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
        LogicalPlan::Repartition(_) => "a repartition",
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

/// A subquery that is answered with yes or no, which becomes a join, and only conditions do.
const ASKING: &str = "EXISTS or IN (SELECT …) outside of a condition";

fn asking(expr: &Expr) -> Option<String> {
    matches!(expr, Expr::Exists(_) | Expr::InSubquery(_)).then(|| ASKING.to_owned())
}

/// Where the first of them stands among the columns of a SELECT.
fn place_of_asking(query: &Query) -> Option<Location> {
    query.visit(&mut Selects).break_value()
}

struct Selects;

impl Visitor for Selects {
    type Break = Location;

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Location> {
        visit_expressions(&select.projection, |expr| match expr {
            ast::Expr::Exists { subquery: query, .. } | ast::Expr::InSubquery { subquery: query, .. } => {
                ControlFlow::Break(query.span().start)
            }
            _ => ControlFlow::Continue(()),
        })
    }
}

/// They are computed after the rows have passed the conditions.
fn has_window(condition: &Expr) -> bool {
    condition.exists(|expr| Ok(matches!(expr, Expr::WindowFunction(_)))).unwrap_or(true)
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

/// [`refusal`], except for a number that its CAST cannot hold: that fails as it would over a column.
pub(crate) fn failure(error: &DataFusionError, query: &Query) -> QueryError {
    if let DataFusionError::ArrowError(cause, _) = error.find_root()
        && let ArrowError::CastError(text) = cause.as_ref()
        && text.starts_with(CAST_FAILED)
    {
        return QueryError::Execution(spoken(error));
    }
    // The store's own trouble, not the statement's.
    if matches!(error.find_root(), DataFusionError::IoError(_) | DataFusionError::ObjectStore(_)) {
        return QueryError::Execution(spoken(error));
    }
    QueryError::Planning(refusal(error, query))
}

/// What the planner said, with its place and the nearest name where it knows them.
pub(crate) fn refusal(error: &DataFusionError, query: &Query) -> SqlRefusal {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let root = error.find_root();
    let at = match (span, root) {
        (Some(span), _) => Some(Location { line: span.start.line, column: span.start.column }),
        (None, DataFusionError::SchemaError(schema, _)) => column_named(schema, query).map(|(at, _)| at),
        (None, root) => {
            let message = root.message();
            place_of_text(&message, query).or_else(|| place_of_function(function_named(&message)?, query))
        }
    };
    let at = at.unwrap_or(Location { line: 0, column: 0 });
    let (message, hint) = match root {
        DataFusionError::SchemaError(schema, _) => schema_words(schema, query),
        root => planner_words(spoken(root)),
    };
    SqlRefusal::at(at, message, hint)
}

/// Where the column is named first, and whether in quotes: the planner forgets the place of those in GROUP BY and ORDER BY.
fn column_named(error: &SchemaError, query: &Query) -> Option<(Location, bool)> {
    let (SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field }) = error else {
        return None;
    };
    let named = visit_expressions(query, |expr| {
        let parts = match expr {
            ast::Expr::Identifier(ident) => std::slice::from_ref(ident),
            ast::Expr::CompoundIdentifier(parts) => parts,
            _ => return ControlFlow::Continue(()),
        };
        match parts.last() {
            Some(last) if names::normal(last) == field.name => {
                ControlFlow::Break((expr.span().start, last.quote_style.is_some()))
            }
            _ => ControlFlow::Continue(()),
        }
    });
    named.break_value().filter(|(at, _)| at.line > 0)
}

/// Where the text stands that the message repeats in quotes, as it was written or with the seconds that were put in.
fn place_of_text(message: &str, query: &Query) -> Option<Location> {
    let written = visit_expressions(query, |expr| {
        let (ast::Expr::Value(value) | ast::Expr::TypedString(ast::TypedString { value, .. })) = expr else {
            return ControlFlow::Continue(());
        };
        let ast::Value::SingleQuotedString(text) = &value.value else { return ControlFlow::Continue(()) };
        let mut completed = text.clone();
        times::complete(&mut completed);
        let told = [text, &completed].into_iter().any(|text| message.contains(&format!("'{text}'")));
        if told { ControlFlow::Break(value.span.start) } else { ControlFlow::Continue(()) }
    });
    written.break_value().filter(|at| at.line > 0)
}

/// The function that the planner complains about: how many values it takes, or of which types.
fn function_named(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Function '")?;
    rest.split_once('\'').map(|(name, _)| name)
}

/// Where a function of that name is called first.
fn place_of_function(name: &str, query: &Query) -> Option<Location> {
    let called = visit_expressions(query, |expr| match expr {
        ast::Expr::Function(function) => match function.name.0.as_slice() {
            [part] if part.as_ident().is_some_and(|ident| names::normal(ident) == name) => {
                ControlFlow::Break(expr.span().start)
            }
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    called.break_value().filter(|at| at.line > 0)
}

fn schema_words(error: &SchemaError, query: &Query) -> (String, String) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let quoted = column_named(error, query).is_some_and(|(_, quoted)| quoted);
            no_column(field, valid_fields, quoted)
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

fn planner_words(message: String) -> (String, String) {
    if message.contains("unique expression names") {
        let hint = "give one of them a name of its own: expression AS name";
        return ("two columns of one SELECT are called alike".to_owned(), hint.to_owned());
    }
    if let (true, Some(name)) = (message.contains("failed to match any signature"), function_named(&message)) {
        return (format!("{name} does not take values of these types"), "CAST converts".to_owned());
    }
    let hint = HINTS.iter().find(|(said, _)| message.contains(said)).map_or(TYPES, |(_, hint)| hint);
    (message, hint.to_owned())
}

/// Names the table that was looked into, and the nearest of its columns.
fn no_column(field: &Column, valid: &[Column], quoted: bool) -> (String, String) {
    let asked = field.relation.as_ref().map(TableReference::table);
    let mut tables: Vec<&str> =
        valid.iter().filter_map(|column| column.relation.as_ref()).map(|at| at.table()).collect();
    tables.dedup();
    if let Some(asked) = asked.filter(|asked| tables.contains(asked)) {
        tables = vec![asked];
    }
    let inside = |column: &&Column| column.relation.as_ref().is_none_or(|at| tables.contains(&at.table()));
    let known = valid.iter().filter(inside).map(|column| column.name.as_str());
    let message = match (asked, tables.is_empty()) {
        (_, true) => format!("there is no column {}", field.flat_name()),
        (Some(asked), false) if !tables.contains(&asked) => {
            format!("there is no column {}: the statement reads {}", field.flat_name(), tables.join(", "))
        }
        _ => format!("there is no column {} in {}", field.name, tables.join(", ")),
    };
    let meant = names::instead_of_column(&field.name, known.clone());
    let hint = match (meant, tables.iter().find_map(|table| names::table(table))) {
        (Some(name), _) => format!("did you mean {name}?"),
        (None, Some(table)) if quoted => {
            format!("look at SELECT * FROM {table} LIMIT 1; text stands in 'single quotes'")
        }
        (None, _) if known.clone().next().is_none() => "text stands in 'single quotes'".to_owned(),
        (None, Some(table)) if known.clone().count() > SHOWN_COLUMNS => {
            format!("look at SELECT * FROM {table} LIMIT 1")
        }
        (None, _) => format!("the columns are {}", known.take(SHOWN_COLUMNS).collect::<Vec<_>>().join(", ")),
    };
    (message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sql: &str) -> (String, String) {
        let refusal = check_plan(sql).unwrap_err();
        (refusal.message, refusal.hint)
    }

    #[test]
    fn what_the_planner_refuses_comes_with_what_to_write() {
        for (sql, hint) in [
            ("SELECT 1 ORDER BY 5", "counts the columns"),
            ("SELECT DISTINCT name FROM processes ORDER BY pid", "select the column too"),
            ("SELECT name, count(*) FROM processes", "into GROUP BY"),
            ("SELECT pid FROM processes AS p LEFT JOIN alerts AS a", "ON a.x = b.x"),
            ("SELECT (SELECT name, pid FROM processes)", "one column"),
            ("SELECT 1 FROM processes WHERE sum(pid) > 1", "HAVING"),
            ("SELECT substr('a') FROM processes", "substr(text, 1, 3)"),
            ("SELECT pid FROM processes WHERE pid = 0x10", "write 16"),
            ("SELECT pid FROM processes WHERE name GLOB '*x'", "use LIKE"),
            ("SELECT pid FROM processes LIMIT 2,3", "LIMIT 3 OFFSET 2"),
            ("SELECT pid FROM processes\nWHERE pid = ?", "$1"),
            ("SELECT `pid` FROM processes", "double quotes"),
            ("SELECT pid FROM processes WHERE pid IN ()", "at least one value"),
            ("SELECT timestamp '9999-12-31'", "1678 to 2261"),
        ] {
            let (message, told) = told(sql);
            assert!(told.contains(hint) && !message.contains('{'), "{sql}: {message}: {told}");
        }
    }

    #[test]
    fn an_unknown_column_is_told_with_its_table_and_the_nearest_one() {
        for (sql, message, hint) in [
            ("SELECT nam FROM processes", "there is no column nam in processes", "did you mean name?"),
            (
                "SELECT zzz FROM process_events",
                "there is no column zzz in process_events",
                "look at SELECT * FROM process_events LIMIT 1",
            ),
            (
                "SELECT pid FROM process_events WHERE name = \"zzz\"",
                "there is no column zzz in process_events",
                "look at SELECT * FROM process_events LIMIT 1; text stands in 'single quotes'",
            ),
            (
                "SELECT p.nam FROM processes p JOIN alerts a ON a.title = p.name",
                "there is no column nam in p",
                "did you mean name?",
            ),
            (
                "SELECT x.pid FROM processes",
                "there is no column x.pid: the statement reads processes",
                "did you mean pid?",
            ),
            ("SELECT cmdline FROM processes", "there is no column cmdline in processes", "did you mean command_line?"),
            (
                "SELECT zzz FROM (SELECT pid AS q FROM processes) AS s",
                "there is no column zzz in s",
                "the columns are q",
            ),
        ] {
            assert_eq!(told(sql), (message.to_owned(), hint.to_owned()), "{sql}");
        }
    }
}
