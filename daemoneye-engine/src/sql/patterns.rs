//! Keeps a regular expression the expression that was written.
//!
//! DataFusion's simplifier turns simple expressions into LIKE, `=` and IS NOT NULL. Two of these rewrites change the answer: a
//! literal backslash reaches LIKE without being escaped, and `.*` over NULL becomes FALSE. An empty group in front matches
//! everywhere and is in no shape that the simplifier rewrites; a group around the whole would end inside a comment of `(?x)`,
//! and one that does not capture is gone once parsed. It is put in on the plan and not on the syntax tree, so that parameters
//! are covered too, columns keep their names, and rules are compiled from what their author wrote.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator};

const EMPTY_GROUP: &str = "()";
/// Becomes the operator `~` later on.
const REGEXP_LIKE: &str = "regexp_like";

/// The expression with its pattern kept, if it has one.
pub(crate) fn kept(mut expr: Expr) -> Transformed<Expr> {
    let pattern = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) if is_expression(*op) => Some(right.as_mut()),
        Expr::ScalarFunction(call) if call.name() == REGEXP_LIKE => call.args.get_mut(1),
        _ => None,
    };
    let changed = pattern.is_some_and(keep);
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// What is wrong with an expression that does not compile, on one line.
pub(crate) fn words(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("the expression needs more than {limit} bytes compiled"),
        // The last line of the crate's report says what; those before it draw the place.
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

const fn is_expression(op: Operator) -> bool {
    matches!(op, Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch)
}

/// Whether `pattern` is a literal, which then starts with the group.
fn keep(pattern: &mut Expr) -> bool {
    match pattern {
        Expr::Cast(Cast { expr, .. }) => keep(expr),
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)),
            _,
        ) => {
            text.insert_str(0, EMPTY_GROUP);
            true
        }
        _ => false,
    }
}
