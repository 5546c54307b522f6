//! PostgreSQL's syntax, with the right side of `IS [NOT] DISTINCT FROM` as PostgreSQL reads it.
//!
//! The parser's own takes everything up to the end of the expression: of `a IS DISTINCT FROM b AND c` it makes
//! `a IS DISTINCT FROM (b AND c)`, which is another question. All else is left to PostgreSQL's dialect.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use std::any::TypeId;

/// What [`Parser`] is given; tokens are PostgreSQL's.
#[derive(Debug)]
pub(crate) struct Postgres;

const INNER: PostgreSqlDialect = PostgreSqlDialect {};

/// Hands these questions on.
macro_rules! asked_of_postgresql {
    ($($name:ident),* $(,)?) => { $(fn $name(&self) -> bool { INNER.$name() })* };
}

impl Dialect for Postgres {
    fn dialect(&self) -> TypeId {
        INNER.dialect()
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        if precedence != self.prec_value(Precedence::Is) {
            return None;
        }
        let make = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        Some(parser.parse_subexpr(precedence).map(|right| make(Box::new(expr.clone()), Box::new(right))))
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        INNER.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        INNER.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        INNER.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        INNER.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        INNER.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, word: Keyword) -> bool {
        INNER.is_reserved_for_identifier(word)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        INNER.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        INNER.prec_value(precedence)
    }

    asked_of_postgresql! {
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_alter_column_type_using,
        supports_array_typedef_with_brackets,
        supports_bitwise_shift_operators,
        supports_comma_separated_trim,
        supports_comment_on,
        supports_comment_optimizer_hint,
        supports_create_index_with_clause,
        supports_create_table_like_parenthesized,
        supports_empty_projections,
        supports_explain_with_utility_options,
        supports_factorial_operator,
        supports_filter_during_aggregation,
        supports_geometric_types,
        supports_group_by_expr,
        supports_insert_table_alias,
        supports_interval_options,
        supports_listen_notify,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_named_fn_args_with_expr_name,
        supports_nested_comments,
        supports_notnull_operator,
        supports_numeric_literal_underscores,
        supports_select_wildcard_with_alias,
        supports_set_names,
        supports_string_escape_constant,
        supports_unicode_string_literal,
        supports_xml_expressions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(condition: &str) -> Expr {
        Parser::new(&Postgres).try_with_sql(condition).unwrap().parse_expr().unwrap()
    }

    fn assert_alike(bare: &str, grouped: &str) {
        let mut trees = [bare, grouped].map(tree);
        for tree in &mut trees {
            ungroup(tree);
        }
        let [bare, grouped] = trees;
        assert_eq!(bare, grouped);
    }

    fn ungroup(tree: &mut Expr) {
        use std::ops::ControlFlow;
        let visited = datafusion::sql::sqlparser::ast::visit_expressions_mut(tree, |expr| {
            while let Expr::Nested(inner) = expr {
                *expr = (**inner).clone();
            }
            ControlFlow::<()>::Continue(())
        });
        assert!(visited.is_continue());
    }

    #[test]
    fn what_follows_distinct_from_ends_where_postgresql_ends_it() {
        assert_alike("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c");
        assert_alike("a IS NOT DISTINCT FROM b OR c", "(a IS NOT DISTINCT FROM b) OR c");
        assert_alike("x AND a IS DISTINCT FROM b OR c", "(x AND (a IS DISTINCT FROM b)) OR c");
        assert_alike("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c");
        assert_alike("a IS DISTINCT FROM b = c AND d", "(a IS DISTINCT FROM (b = c)) AND d");
        assert_alike("a + x IS DISTINCT FROM b + y OR c", "((a + x) IS DISTINCT FROM (b + y)) OR c");
    }

    #[test]
    fn a_long_chain_is_not_nested() {
        let chain = vec!["a IS DISTINCT FROM b"; 500].join(" OR ");
        assert!(matches!(tree(&chain), Expr::BinaryOp { .. }));
    }

    #[test]
    fn everything_else_is_read_as_postgresql_reads_it() {
        for sql in [
            "SELECT a IS NULL AND NOT b IS TRUE OR c ~* 'x' FROM t AS x, LATERAL (SELECT 1) y WHERE a::text LIKE E'\\n%'",
            "SELECT * AS a, count(*) FILTER (WHERE a) OVER w FROM t GROUP BY GROUPING SETS ((a), ()) ORDER BY 1 NULLS LAST",
            "SELECT 1_000, U&'\\0061', x'ff', a NOTNULL, b!, a << 2, a #> b, TRIM('a', 'b'), EXTRACT('day' FROM a)",
            "SELECT f(a => 1), f('a': 1), INTERVAL '1 day', INTERVAL '1' DAY, ARRAY[1][1], TIMESTAMP '2026-01-31' /* /* */ */",
            "SELECT FROM t",
            "INSERT INTO t AS x VALUES (1)",
            "LISTEN a",
            "COMMENT ON TABLE a IS 'b'",
            "CREATE TABLE a (LIKE b)",
            "EXPLAIN (ANALYZE, VERBOSE) SELECT 1",
            "SET NAMES 'UTF8'",
            "SELECT a FROM t WHERE b ->> 'c' = 'd' COLLATE \"C\" AND e BETWEEN 1 AND 2 OR f IN (1) OR g = ANY (h)",
        ] {
            let ours = Parser::parse_sql(&Postgres, sql);
            assert_eq!(ours, Parser::parse_sql(&INNER, sql), "{sql}");
        }
    }
}
