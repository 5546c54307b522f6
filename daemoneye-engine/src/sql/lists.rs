//! `list('name')`: a named set of values stands as its literals before anything else looks at the statement.
//!
//! It stands inside `IN (…)` and among the values of the matching functions (`ci_contains(x, list('names'))`). Nothing is IN an empty
//! list, not even NULL, and everything is NOT IN it. The literals stand where the call stood, so that a value of the wrong kind is told
//! with that place.

use super::SqlRefusal;
use super::names::normal;
use crate::text::FUNCTIONS;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Query, Spanned as _, Value,
    ValueWithSpan, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Values of lists in one statement: a list has up to 10,000, and each is a literal that is planned.
const MAX_VALUES: usize = 50_000;

/// How a list is named in SQL.
const CALL: &str = "list";

/// One value of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ListItem {
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

/// The lists that a statement may name.
pub(crate) trait ValueLists: Sync {
    /// The values, or `None` when there is no such list.
    fn items(&self, name: &str) -> Option<Arc<[ListItem]>>;
    /// What to write instead of a name that is none.
    fn instead(&self, name: &str) -> String;
}

/// Puts values in the place of every list and returns the names that were used.
pub(crate) fn expand(query: &mut Query, lists: &dyn ValueLists) -> Result<BTreeSet<String>, SqlRefusal> {
    let mut expansion = Expansion { lists, used: BTreeSet::new(), values: 0 };
    match query.visit(&mut expansion) {
        ControlFlow::Continue(()) => Ok(expansion.used),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

struct Expansion<'a> {
    lists: &'a dyn ValueLists,
    used: BTreeSet<String>,
    values: usize,
}

impl VisitorMut for Expansion<'_> {
    type Break = SqlRefusal;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlRefusal> {
        let done = match expr {
            Expr::InList { list, .. } if list.iter().any(is_list) => self.in_list(list),
            Expr::Function(function) if takes_lists(function) => match self.arguments(function) {
                Ok(true) => {
                    *expr = literal(Value::Boolean(false), function.span());
                    Ok(())
                }
                Ok(false) => Ok(()),
                Err(refusal) => Err(refusal),
            },
            Expr::Function(function) if is_call(function) => {
                let hint = "write x IN (list('web_servers')), or ci_contains(x, list('…'))";
                Err(SqlRefusal::span(function.span(), "a list stands inside IN (…) only", hint))
            }
            _ => Ok(()),
        };
        done.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

impl Expansion<'_> {
    fn in_list(&mut self, list: &mut Vec<Expr>) -> Result<(), SqlRefusal> {
        let mut values = Vec::with_capacity(list.len());
        for item in list.drain(..) {
            match &item {
                Expr::Function(function) if is_call(function) => values.extend(self.values(function)?),
                _ => values.push(item),
            }
        }
        *list = values;
        Ok(())
    }

    /// Whether no value is left to compare with.
    fn arguments(&mut self, function: &mut Function) -> Result<bool, SqlRefusal> {
        let FunctionArguments::List(list) = &mut function.args else { return Ok(false) };
        let mut args = Vec::with_capacity(list.args.len());
        for arg in list.args.drain(..) {
            match &arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner))) if is_call(inner) => {
                    let values = self.values(inner)?;
                    args.extend(values.into_iter().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value))));
                }
                _ => args.push(arg),
            }
        }
        list.args = args;
        Ok(list.args.len() < 2)
    }

    fn values(&mut self, call: &Function) -> Result<Vec<Expr>, SqlRefusal> {
        let span = call.span();
        let Some(name) = argument(call) else {
            return Err(SqlRefusal::span(span, "a list is named by one text", "write list('web_servers')"));
        };
        let Some(items) = self.lists.items(name) else {
            return Err(SqlRefusal::span(span, format!("there is no list {name}"), self.lists.instead(name)));
        };
        self.values = self.values.saturating_add(items.len());
        if self.values > MAX_VALUES {
            let what = format!("the lists of the statement have more than {MAX_VALUES} values together");
            return Err(SqlRefusal::span(span, what, "name each list once, or split the statement"));
        }
        self.used.insert(name.to_owned());
        let value = |item: &ListItem| match item {
            ListItem::Integer(number) => Value::Number(number.to_string(), false),
            ListItem::Text(text) => Value::SingleQuotedString(text.clone()),
        };
        Ok(items.iter().map(|item| literal(value(item), span)).collect())
    }
}

const fn literal(value: Value, span: Span) -> Expr {
    Expr::Value(ValueWithSpan { value, span })
}

fn is_list(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if is_call(function))
}

fn is_call(function: &Function) -> bool {
    name(function).is_some_and(|name| name == CALL)
}

/// The matching functions, but for the one whose further arguments are a pattern and its flags.
fn takes_values(name: &str) -> bool {
    name != "re_match" && FUNCTIONS.contains(&name)
}

/// With a list among its arguments.
fn takes_lists(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let lists =
        list.args.iter().any(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if is_list(expr)));
    lists && name(function).is_some_and(|name| takes_values(&name))
}

fn name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(normal(ident)),
        _ => None,
    }
}

fn argument(call: &Function) -> Option<&str> {
    let FunctionArguments::List(list) = &call.args else { return None };
    match list.args.as_slice() {
        [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan {
                value: Value::SingleQuotedString(text),
                ..
            }))),
        ] => Some(text),
        _ => None,
    }
}
