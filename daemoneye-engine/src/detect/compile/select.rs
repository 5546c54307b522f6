//! The shape of the SELECT: one table of events, a condition, and what to return.

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned, TableFactor,
    WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::super::matcher::{Scalar, Test};
use super::super::row::START_KIND;
use super::{Compiled, Compiler, Output, Problem};
use crate::sql::names::normal;

/// The one table whose rows are decided as they arrive.
const TABLE: &str = "process_events";

/// The refusal of everything that one event cannot decide.
pub(super) fn window_rule(at: Location, what: &str) -> Problem {
    Problem::at(at, format!("a rule cannot contain {what}"))
        .hint("write SELECT … FROM process_events; parent columns and ancestry are in the event")
}

pub(super) fn compile(query: &Query) -> Result<Compiled, Problem> {
    let select = plain_select(query)?;
    let mut compiler = Compiler::new(vec![table(select)?]);
    let condition = match &select.selection {
        Some(condition) => compiler.test(condition, true)?,
        None => Test::Always,
    };
    let (sees_forks, asked) = (compiler.columns.contains(&*START_KIND), compiler.columns.clone());
    let mut outputs = Vec::new();
    for item in &select.projection {
        compiler.output(item, &mut outputs)?;
    }
    Ok(Compiled { condition, outputs, columns: compiler.columns, asked, sees_forks })
}

/// The name by which columns may be qualified, and the condition.
pub(in crate::detect) fn table_and_condition(query: &Query) -> Result<(String, Option<&Expr>), Problem> {
    let select = plain_select(query)?;
    Ok((table(select)?, select.selection.as_ref()))
}

fn plain_select(query: &Query) -> Result<&Select, Problem> {
    let whole = query.span().start;
    if let Some(with) = &query.with {
        return Err(window_rule(with.span().start, "WITH"));
    }
    let select = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        other => return Err(window_rule(other.span().start, "UNION or a nested query")),
    };
    let ordered = query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some();
    if ordered || select.distinct.is_some() || select.top.is_some() {
        return Err(Problem::at(whole, "ORDER BY, LIMIT and DISTINCT have no meaning for a rule")
            .hint("each event is decided by itself; leave them out, and use dedup: to fold repeats"));
    }
    if grouped(select) {
        return Err(window_rule(whole, "GROUP BY, HAVING or a window"));
    }
    Ok(select)
}

fn grouped(select: &Select) -> bool {
    let by = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
    };
    by || select.having.is_some() || select.qualify.is_some() || !select.named_window.is_empty()
}

/// The name by which columns may be qualified.
fn table(select: &Select) -> Result<String, Problem> {
    let [from] = select.from.as_slice() else {
        let at = select.from.get(1).map_or_else(|| select.span().start, |from| from.span().start);
        return Err(match select.from.len() {
            0 => Problem::at(at, "the rule reads no table").hint(format!("write FROM {TABLE}")),
            _ => window_rule(at, "a second table"),
        });
    };
    if let Some(join) = from.joins.first() {
        return Err(window_rule(join.span().start, "JOIN"));
    }
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else {
        return Err(window_rule(from.relation.span().start, "a subquery or table function"));
    };
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if normal(ident) == TABLE => {}
        _ => {
            return Err(window_rule(name.span().start, &format!("the table {name}")));
        }
    }
    Ok(alias.as_ref().map_or_else(|| TABLE.to_owned(), |alias| normal(&alias.name)))
}

impl Compiler {
    fn output(&mut self, item: &SelectItem, outputs: &mut Vec<Output>) -> Result<(), Problem> {
        let (name, expr) = match item {
            SelectItem::UnnamedExpr(expr) => (output_name(expr), expr),
            SelectItem::ExprWithAlias { expr, alias } => (normal(alias), expr),
            SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) if is_plain(options) => {
                return self.every_column(item, outputs);
            }
            other => {
                return Err(Problem::of(other, format!("a rule cannot return {other}")).hint("write columns, or *"));
            }
        };
        let value = self.scalar(expr)?.scalar;
        push(outputs, Output { name, value }, expr.span().start)
    }

    fn every_column(&mut self, item: &SelectItem, outputs: &mut Vec<Output>) -> Result<(), Problem> {
        for (at, column) in PROCESS_EVENTS.iter().enumerate() {
            self.columns.insert(at);
            push(outputs, Output { name: column.name.to_owned(), value: Scalar::Column(at) }, item.span().start)?;
        }
        Ok(())
    }
}

/// A name that stands twice would lose one of the values in the alert.
fn push(outputs: &mut Vec<Output>, output: Output, at: Location) -> Result<(), Problem> {
    if outputs.iter().any(|other| other.name == output.name) {
        return Err(
            Problem::at(at, format!("the rule returns {} twice", output.name)).hint("give one of them an alias")
        );
    }
    outputs.push(output);
    Ok(())
}

/// A column by its name, anything else by its text.
fn output_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => normal(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(normal).unwrap_or_default(),
        other => other.to_string(),
    }
}

const fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    opt_ilike.is_none()
        && opt_exclude.is_none()
        && opt_except.is_none()
        && opt_replace.is_none()
        && opt_rename.is_none()
        && opt_alias.is_none()
}
