//! The functions that a rule may call.

use daemoneye_lib::columns::Kind;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Spanned,
};

use super::super::matcher::{Leaf, Scalar, Search};
use super::calls::refusal;
use super::literal::text_of;
use super::{Compiler, Problem, Typed, kind_name, select};
use crate::sql::names::normal;
use crate::text::{self, Fits, Folding};

/// Functions of the SQL engine that fold several rows into one.
const AGGREGATES: &[&str] = &[
    "avg",
    "count",
    "max",
    "min",
    "sum",
    "array_agg",
    "string_agg",
    "approx_distinct",
    "median",
    "stddev",
    "first_value",
    "last_value",
    "row_number",
    "rank",
    "lag",
    "lead",
];

/// Whether its value is a truth value.
pub(super) fn is_predicate(function: &Function) -> bool {
    let name = name(function);
    matches!(name.as_str(), "contains" | "ends_with" | "regexp_like" | "starts_with") || is_strict(&name)
}

fn is_strict(name: &str) -> bool {
    text::FUNCTIONS.contains(&name)
}

pub(super) fn name(function: &Function) -> String {
    match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => normal(ident),
        _ => function.name.to_string(),
    }
}

impl Compiler {
    /// A function with a value.
    pub(super) fn call(&mut self, function: &Function) -> Result<Typed, Problem> {
        let arguments = arguments(function)?;
        let name = name(function);
        if let Some(typed) = self.known_call(&name, &arguments) {
            return typed;
        }
        match (name.as_str(), arguments.as_slice()) {
            ("ci_fold", [text]) => self.text_call(text, Scalar::Fold),
            ("lower", [text]) => self.text_call(text, Scalar::Lower),
            ("upper", [text]) => self.text_call(text, Scalar::Upper),
            ("length" | "char_length" | "character_length", [text]) => {
                let text = self.of_kind(text, Kind::Text)?;
                Ok(Typed { scalar: Scalar::Length(Box::new(text)), kind: Some(Kind::Integer), narrow: true })
            }
            ("concat", parts) if !parts.is_empty() => {
                let parts: Result<_, _> = parts.iter().map(|part| self.of_kind(part, Kind::Text)).collect();
                Ok(Typed::new(Scalar::Concat(parts?), Kind::Text))
            }
            ("coalesce", choices) if !choices.is_empty() => self.coalesce(choices),
            _ => Err(refusal(function)),
        }
    }

    fn text_call(&mut self, text: &Expr, call: impl FnOnce(Box<Scalar>) -> Scalar) -> Result<Typed, Problem> {
        Ok(Typed::new(call(Box::new(self.of_kind(text, Kind::Text)?)), Kind::Text))
    }

    fn coalesce(&mut self, choices: &[&Expr]) -> Result<Typed, Problem> {
        let (mut kind, mut narrow, mut scalars) = (None, true, Vec::with_capacity(choices.len()));
        for choice in choices {
            let typed = self.scalar(choice)?;
            if kind.is_some() && typed.kind.is_some() && kind != typed.kind {
                let message = format!("coalesce mixes {} and {}", kind_name(kind), kind_name(typed.kind));
                return Err(Problem::of(*choice, message).hint("its arguments must be of one kind"));
            }
            kind = kind.or(typed.kind);
            narrow &= typed.narrow || typed.kind.is_none();
            scalars.push(typed.scalar);
        }
        Ok(Typed { scalar: Scalar::Coalesce(scalars.into()), kind, narrow })
    }

    /// A function that is TRUE, FALSE or NULL.
    pub(super) fn predicate(&mut self, function: &Function) -> Result<Leaf, Problem> {
        let arguments = arguments(function)?;
        let search = match (name(function).as_str(), arguments.as_slice()) {
            ("contains", [_, _]) => Search::Contains,
            ("ends_with", [_, _]) => Search::EndsWith,
            ("starts_with", [_, _]) => Search::StartsWith,
            ("regexp_like", [subject, pattern]) => return self.regexp_like(subject, pattern, ""),
            ("regexp_like", [subject, pattern, flags]) => {
                return self.regexp_like(subject, pattern, text_of(flags, "the flags of regexp_like")?);
            }
            (name, [subject, values @ ..]) if is_strict(name) => return self.strict(function, name, subject, values),
            _ => return Err(refusal(function)),
        };
        let [text, needle] = arguments.as_slice() else { return Err(refusal(function)) };
        let text = self.of_kind(text, Kind::Text)?;
        Ok(match (search, self.of_kind(needle, Kind::Text)?) {
            (Search::Contains, Scalar::Text(needle)) => Leaf::Fits(text, Fits::contains(Folding::None, &[&needle])),
            (Search::EndsWith, Scalar::Text(needle)) => Leaf::Fits(text, Fits::ends(&needle)),
            (Search::StartsWith, Scalar::Text(needle)) => Leaf::Fits(text, Fits::starts(&needle)),
            (search, needle) => Leaf::Search(text, search, needle),
        })
    }

    fn strict(&mut self, function: &Function, name: &str, subject: &Expr, values: &[&Expr]) -> Result<Leaf, Problem> {
        let subject = self.of_kind(subject, Kind::Text)?;
        let what = format!("a value of {name}");
        let texts: Vec<&str> = values.iter().map(|value| text_of(value, &what)).collect::<Result<_, _>>()?;
        if texts.is_empty() {
            return Err(refusal(function));
        }
        match Fits::of_function(name, &texts) {
            Some(Ok(fits)) => Ok(Leaf::Strict(subject, fits)),
            Some(Err((at, error))) => Err(match values.get(at) {
                Some(value) => Problem::of(*value, error),
                None => Problem::at(function.span().start, error),
            }),
            None => Err(refusal(function)),
        }
    }

    fn regexp_like(&mut self, subject: &Expr, pattern: &Expr, flags: &str) -> Result<Leaf, Problem> {
        if !flags.chars().all(|flag| "imsx".contains(flag)) {
            return Err(Problem::of(pattern, format!("the flags '{flags}' of regexp_like are not known"))
                .hint("known are i, m, s and x"));
        }
        let text = text_of(pattern, "a regular expression")?;
        self.expression(subject, pattern, text, flags)
    }

    /// The leaf of a regular expression, whatever spelling it came in.
    pub(super) fn expression(&mut self, subject: &Expr, at: &Expr, text: &str, flags: &str) -> Result<Leaf, Problem> {
        let subject = self.of_kind(subject, Kind::Text)?;
        let fits = Fits::expression(text, flags)
            .map_err(|error| Problem::of(at, format!("the regular expression does not compile: {error}")))?;
        Ok(Leaf::Fits(subject, fits))
    }
}

/// The arguments, if it is a plain call.
fn arguments(function: &Function) -> Result<Vec<&Expr>, Problem> {
    let name = name(function);
    if function.over.is_some() || AGGREGATES.contains(&name.as_str()) {
        return Err(select::window_rule(function.span().start, &format!("{name}(…)")));
    }
    let plain = function.filter.is_none() && function.within_group.is_empty() && function.null_treatment.is_none();
    let FunctionArguments::List(list) = &function.args else { return Err(refusal(function)) };
    if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(refusal(function));
    }
    list.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            _ => Err(refusal(function)),
        })
        .collect()
}
