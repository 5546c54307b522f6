//! Queries: WITH, the set expression, ORDER BY, LIMIT.

use super::super::{SqlRefusal, names};
use super::{Entry, MAX_CTES, MAX_EXPANSION, MAX_EXPRESSION_DEPTH, MAX_SCANS, MAX_SUBQUERY_DEPTH, Step, Walker};
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, Query, SetExpr, SetOperator,
    SetQuantifier, TableAlias, TableAliasColumnDef, Value, ValueWithSpan, Values, With,
};
use datafusion::sql::sqlparser::keywords::Keyword;

impl Walker {
    /// The statement itself: a SELECT or a UNION of them.
    pub(super) fn outermost(&mut self, query: &Query) -> Step {
        if let SetExpr::Values(_) = query.body.as_ref() {
            return self.refuse("VALUES alone is not accepted", "write SELECT … FROM (VALUES …) AS t");
        }
        self.query(query)
    }

    /// A query inside another one.
    pub(super) fn subquery(&mut self, query: &Query) -> Step {
        self.subqueries = self.subqueries.saturating_add(1);
        self.inner = self.inner.saturating_add(1);
        if self.subqueries > MAX_SUBQUERY_DEPTH {
            return self.refuse_node(
                query,
                format!("subqueries nested deeper than {MAX_SUBQUERY_DEPTH}"),
                "name the inner ones with WITH, one after the other",
            );
        }
        let outer = (std::mem::take(&mut self.depth), self.weight, self.references);
        self.query(query)?;
        (self.depth, self.weight, self.references) = outer;
        self.subqueries = self.subqueries.saturating_sub(1);
        Ok(())
    }

    fn query(&mut self, query: &Query) -> Step {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let outer_ctes = self.ctes.len();
        if let Some(with) = with {
            self.with(with)?;
        }
        self.set_expr(body)?;
        if let Some(order_by) = order_by {
            let (weight, produced) = (self.weight, self.produced);
            self.weight = weight.max(produced);
            self.order_by(order_by)?;
            (self.weight, self.produced) = (weight, produced);
        }
        if let Some(limit) = limit_clause {
            self.limit(limit)?;
        }
        self.absent_at(Keyword::FETCH, fetch.is_some(), "FETCH", "use LIMIT")?;
        self.absent_at(
            Keyword::FOR,
            !locks.is_empty(),
            "a locking clause (FOR UPDATE, FOR SHARE)",
            "nothing is locked here: leave it out",
        )?;
        self.absent_at(
            Keyword::FOR,
            for_clause.is_some(),
            "FOR XML, FOR JSON and FOR BROWSE",
            "choose the output format in the CLI",
        )?;
        self.absent(settings.is_some(), "SETTINGS", "limits are set in the agent's configuration")?;
        self.absent(format_clause.is_some(), "FORMAT", "choose the output format in the CLI")?;
        self.absent(!pipe_operators.is_empty(), "the pipe syntax", "write a SELECT")?;
        self.ctes.truncate(outer_ctes);
        Ok(())
    }

    fn with(&mut self, with: &With) -> Step {
        let With { with_token: _, recursive, cte_tables } = with;
        if *recursive {
            return self.refuse_node(
                with,
                "WITH RECURSIVE is not accepted",
                "use ancestry, or join a fixed number of times",
            );
        }
        for cte in cte_tables {
            let name = names::normal(&cte.alias.name);
            // Also where one stands inside of another.
            if self.ctes.iter().any(|known| known.name == name) {
                self.ident(&cte.alias.name)?;
                return self.refuse(format!("WITH names {name} more than once"), "give each a name of its own");
            }
            self.cte(cte)?;
        }
        Ok(())
    }

    fn cte(&mut self, cte: &Cte) -> Step {
        let Cte { alias, query, from, materialized, closing_paren_token: _ } = cte;
        self.table_alias(alias)?;
        self.absent(from.is_some(), "FROM after WITH", "leave it out")?;
        self.absent(materialized.is_some(), "MATERIALIZED", "leave it out")?;
        self.cte_count = self.cte_count.saturating_add(1);
        if self.cte_count > MAX_CTES {
            return self.refuse(format!("more than {MAX_CTES} WITH entries"), "split the query");
        }
        let name = names::normal(&alias.name);
        if names::table(&name.to_ascii_lowercase()).is_some() {
            return self.refuse(format!("WITH may not take the name of the table {name}"), "name it otherwise");
        }
        let before = self.scans;
        self.subquery(query)?;
        self.ctes.push(Entry { name, scans: self.scans.saturating_sub(before), weight: self.produced });
        Ok(())
    }

    pub(super) fn table_alias(&mut self, alias: &TableAlias) -> Step {
        let TableAlias { explicit: _, name, columns, at } = alias;
        self.ident(name)?;
        self.absent(at.is_some(), "AT after an alias", "leave it out")?;
        for column in columns {
            let TableAliasColumnDef { name, data_type } = column;
            self.ident(name)?;
            self.absent(data_type.is_some(), "a type in an alias", "use CAST in the SELECT list")?;
        }
        Ok(())
    }

    fn set_expr(&mut self, body: &SetExpr) -> Step {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.subquery(query),
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                match op {
                    SetOperator::Union => {}
                    SetOperator::Except | SetOperator::Minus => {
                        return self.refuse_node(
                            right.as_ref(),
                            format!("{op} is not accepted"),
                            "use NOT EXISTS or NOT IN",
                        );
                    }
                    SetOperator::Intersect => {
                        return self.refuse_node(right.as_ref(), "INTERSECT is not accepted", "use EXISTS or IN");
                    }
                }
                match set_quantifier {
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None => {}
                    SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
                        return self.refuse("UNION BY NAME is not accepted", "list the columns in the same order");
                    }
                }
                self.deeper(|walker| {
                    walker.set_expr(left)?;
                    let left = walker.produced;
                    walker.set_expr(right)?;
                    walker.produced = walker.produced.max(left);
                    Ok(())
                })
            }
            SetExpr::Values(values) => self.values(values),
            SetExpr::Insert(_) => self.refuse("INSERT is not accepted", "queries only read"),
            SetExpr::Update(_) => self.refuse("UPDATE is not accepted", "queries only read"),
            SetExpr::Delete(_) => self.refuse("DELETE is not accepted", "queries only read"),
            SetExpr::Merge(_) => self.refuse("MERGE is not accepted", "queries only read"),
            SetExpr::Table(_) => self.refuse("TABLE is not accepted", "write SELECT * FROM the table"),
        }
    }

    fn values(&mut self, values: &Values) -> Step {
        let Values { explicit_row, value_keyword, rows } = values;
        self.absent(*explicit_row || *value_keyword, "VALUES ROW", "write VALUES (…), (…)")?;
        self.scan(1)?;
        self.produced = 1;
        for row in rows {
            for expr in &row.content {
                self.expr(expr)?;
            }
        }
        Ok(())
    }

    fn order_by(&mut self, order_by: &OrderBy) -> Step {
        let OrderBy { kind, interpolate } = order_by;
        self.absent(interpolate.is_some(), "INTERPOLATE", "leave it out")?;
        match kind {
            OrderByKind::All(_) => self.refuse("ORDER BY ALL is not accepted", "name the columns"),
            OrderByKind::Expressions(keys) => self.sort_keys(keys),
        }
    }

    pub(super) fn sort_keys(&mut self, keys: &[OrderByExpr]) -> Step {
        for key in keys {
            let OrderByExpr { expr, options: OrderByOptions { asc: _, nulls_first: _ }, with_fill } = key;
            self.root(expr)?;
            self.absent(with_fill.is_some(), "WITH FILL", "leave it out")?;
        }
        Ok(())
    }

    fn limit(&mut self, limit: &LimitClause) -> Step {
        match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => {
                self.absent(!limit_by.is_empty(), "LIMIT BY", "use row_number() OVER (PARTITION BY …)")?;
                if let Some(limit) = limit {
                    self.row_count(limit)?;
                }
                if let Some(Offset { value, rows: _ }) = offset {
                    self.row_count(value)?;
                }
                Ok(())
            }
            LimitClause::OffsetCommaLimit { offset: _, limit: _ } => {
                self.refuse("LIMIT with a comma is not accepted", "write LIMIT n OFFSET m")
            }
        }
    }

    /// LIMIT and OFFSET take a number, so that their cost is known before anything runs.
    fn row_count(&mut self, count: &Expr) -> Step {
        match count {
            Expr::Value(ValueWithSpan { value: Value::Number(text, _), span: _ }) if text.parse::<i64>().is_err() => {
                self.refuse_node(
                    count,
                    "LIMIT and OFFSET take a whole number of at most 9223372036854775807",
                    "leave it out to get all rows",
                )
            }
            Expr::Value(value) if matches!(value.value, Value::Number(..) | Value::Placeholder(_)) => self.expr(count),
            _ => self.refuse_node(
                count,
                "LIMIT and OFFSET take a number or a parameter",
                "compute it before, and bind it as $1",
            ),
        }
    }

    /// Counts what the planner will have to read.
    pub(super) fn scan(&mut self, scans: usize) -> Step {
        self.scans = self.scans.saturating_add(scans);
        if self.scans <= MAX_SCANS {
            return Ok(());
        }
        self.refuse(
            format!("more than {MAX_SCANS} tables are read, each use of a WITH entry counted"),
            "split the query",
        )
    }

    /// A whole expression: what its columns stand for is bounded.
    pub(super) fn root(&mut self, expr: &Expr) -> Result<usize, SqlRefusal> {
        let outer = std::mem::take(&mut self.references);
        self.expr(expr)?;
        let expanded = std::mem::replace(&mut self.references, outer).max(1).saturating_mul(self.weight);
        if expanded > MAX_EXPANSION {
            return self.refuse_node(
                expr,
                format!("an expression that stands for more than {MAX_EXPANSION} columns"),
                "use each column of an inner query fewer times",
            );
        }
        Ok(expanded)
    }

    /// One level further down; bounds every recursion of the walk.
    pub(super) fn deeper(&mut self, inside: impl FnOnce(&mut Self) -> Step) -> Step {
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_EXPRESSION_DEPTH {
            return Err(SqlRefusal::at(
                self.near,
                format!("an expression of more than {MAX_EXPRESSION_DEPTH} levels"),
                "use concat(…) or IN (…) instead of a long chain of operators",
            ));
        }
        inside(self)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }
}
