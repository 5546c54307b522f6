//! FROM: our tables, WITH entries and subqueries, joined.

use super::super::{instant, names};
use super::{Entry, Step, Walker};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, TableFactor,
    TableFunctionArgs, TableWithJoins, Value,
};

impl Walker {
    pub(super) fn table_with_joins(&mut self, table: &TableWithJoins) -> Step {
        let TableWithJoins { relation, joins } = table;
        self.table_factor(relation)?;
        for join in joins {
            self.join(join)?;
        }
        Ok(())
    }

    fn join(&mut self, join: &Join) -> Step {
        let Join { relation, global, join_operator } = join;
        self.absent(*global, "GLOBAL JOIN", "write JOIN")?;
        self.table_factor(relation)?;
        match join_operator {
            JoinOperator::Join(on)
            | JoinOperator::Inner(on)
            | JoinOperator::Left(on)
            | JoinOperator::LeftOuter(on)
            | JoinOperator::CrossJoin(on) => self.join_constraint(on),
            // The planner's column is that of the left table, which is NULL where only the right one has a row.
            JoinOperator::Right(JoinConstraint::Using(_))
            | JoinOperator::RightOuter(JoinConstraint::Using(_))
            | JoinOperator::FullOuter(JoinConstraint::Using(_)) => self.refuse_node(
                relation,
                "USING is not accepted with RIGHT and FULL JOIN",
                "write ON a.x = b.x, and coalesce(a.x, b.x) for the column of both",
            ),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) | JoinOperator::FullOuter(on) => {
                self.join_constraint(on)
            }
            JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::RightSemi(_) => {
                self.refuse_node(relation, "SEMI JOIN is not accepted", "use EXISTS or IN")
            }
            JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) | JoinOperator::RightAnti(_) => {
                self.refuse_node(relation, "ANTI JOIN is not accepted", "use NOT EXISTS")
            }
            JoinOperator::CrossApply | JoinOperator::OuterApply => {
                self.refuse_node(relation, "APPLY is not accepted", "use JOIN")
            }
            JoinOperator::AsOf { match_condition: _, constraint: _ } => {
                self.refuse_node(relation, "ASOF JOIN is not accepted", "use JOIN with a condition on time")
            }
            JoinOperator::StraightJoin(_) => self.refuse_node(relation, "STRAIGHT_JOIN is not accepted", "use JOIN"),
            JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                self.refuse_node(relation, "ARRAY JOIN is not accepted", "use JOIN")
            }
        }
    }

    fn join_constraint(&mut self, constraint: &JoinConstraint) -> Step {
        match constraint {
            JoinConstraint::On(condition) => self.root(condition).map(drop),
            JoinConstraint::Using(columns) => {
                for column in columns {
                    self.qualifier(column)?;
                }
                Ok(())
            }
            JoinConstraint::Natural => self.refuse("NATURAL JOIN is not accepted", "name the columns with USING (…)"),
            JoinConstraint::None => Ok(()),
        }
    }

    fn table_factor(&mut self, table: &TableFactor) -> Step {
        match table {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                // The name first: what stands around it is refused where the whole statement begins.
                match args {
                    Some(args) => self.instant(name, args)?,
                    None => self.table(name)?,
                }
                self.absent(!with_hints.is_empty() || !index_hints.is_empty(), "a table hint", "leave it out")?;
                self.absent(version.is_some(), "a table version", "filter by time")?;
                self.absent(*with_ordinality, "WITH ORDINALITY", "use row_number() OVER (…)")?;
                self.absent(!partitions.is_empty(), "PARTITION", "filter by time")?;
                self.absent(json_path.is_some(), "a path into a table", "name the table only")?;
                self.absent(sample.is_some(), "TABLESAMPLE", "use LIMIT")?;
                alias.as_ref().map_or(Ok(()), |alias| self.table_alias(alias))
            }
            TableFactor::Derived { lateral, subquery, alias, sample } => {
                self.absent(*lateral, "LATERAL", "join the tables")?;
                self.absent(sample.is_some(), "TABLESAMPLE", "use LIMIT")?;
                self.subquery(subquery)?;
                self.weight = self.weight.max(self.produced);
                alias.as_ref().map_or(Ok(()), |alias| self.table_alias(alias))
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.deeper(|walker| walker.table_with_joins(table_with_joins))?;
                alias.as_ref().map_or(Ok(()), |alias| self.table_alias(alias))
            }
            TableFactor::TableFunction { .. } | TableFactor::Function { .. } => {
                self.refuse_node(table, "a function in FROM is not accepted", "there are no table functions")
            }
            TableFactor::UNNEST { .. } => self.refuse_node(table, "UNNEST is not accepted", "there are no arrays"),
            TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => {
                self.refuse_node(table, "JSON and XML tables are not accepted", "select the columns")
            }
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
                self.refuse_node(table, "PIVOT is not accepted", "use sum(CASE WHEN … THEN 1 END)")
            }
            TableFactor::MatchRecognize { .. } => {
                self.refuse_node(table, "MATCH_RECOGNIZE is not accepted", "use lag() OVER (…)")
            }
            TableFactor::SemanticView { .. } => {
                self.refuse_node(table, "SEMANTIC_VIEW is not accepted", "name the table")
            }
        }
    }

    /// `processes_at(…)`, the only function in FROM: literals of a time, or one parameter.
    fn instant(&mut self, name: &ObjectName, args: &TableFunctionArgs) -> Step {
        let TableFunctionArgs { args, settings } = args;
        if !names::is_instant(name) {
            let hint = "the only function in FROM is processes_at('2026-01-31T12:00Z')";
            return self.refuse_node(name, format!("{name}(…) in FROM is not accepted"), hint);
        }
        self.identifiers(name)?;
        self.absent(settings.is_some(), "SETTINGS in processes_at(…)", "leave it out")?;
        if args.is_empty() {
            return self.refuse_node(name, "processes_at needs a time", instant::HINT);
        }
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => {
                    self.value(value)?;
                    let is_literal = matches!(value.value, Value::SingleQuotedString(_));
                    let is_parameter = args.len() == 1 && matches!(value.value, Value::Placeholder(_));
                    if !is_literal && !is_parameter {
                        return self.refuse("processes_at takes a time as text, or one parameter", instant::HINT);
                    }
                }
                other => {
                    return self.refuse_node(other, "processes_at takes nothing that is calculated", instant::HINT);
                }
            }
        }
        self.instants.extend(instant::parameter(args));
        self.tables.insert(instant::TABLE);
        self.scan(1)
    }

    fn identifiers(&mut self, name: &ObjectName) -> Step {
        name.0.iter().filter_map(ObjectNamePart::as_ident).try_for_each(|ident| self.ident(ident))
    }

    /// A name in FROM: one of ours, alone. A path, a schema or a catalog in front of it is refused.
    fn table(&mut self, name: &ObjectName) -> Step {
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
            return self.refuse_node(
                name,
                format!("{name} is not a table of ours"),
                "write the table's name without a schema",
            );
        };
        self.ident(ident)?;
        if let Some((_, at)) =
            self.texts.iter().find(|(text, _)| ident.quote_style == Some('\'') && *text == ident.value)
        {
            self.near = *at;
        }
        let plain = names::normal(ident);
        if let Some(Entry { scans, weight, .. }) = self.ctes.iter().rev().find(|entry| entry.name == plain) {
            let (scans, weight) = (*scans, *weight);
            self.weight = self.weight.max(weight);
            return self.scan(scans);
        }
        match names::table(&plain) {
            Some(known) => {
                self.tables.insert(known);
                self.scan(1)
            }
            None if plain == names::PROCESSES_AT => self.refuse_node(name, "processes_at needs a time", instant::HINT),
            None => self.refuse_node(name, format!("there is no table {name}"), &names::instead_of_table(&plain)),
        }
    }

    /// A name in front of `.*` or inside USING: one plain identifier.
    pub(super) fn qualifier(&mut self, name: &ObjectName) -> Step {
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => self.ident(ident),
            _ => self.refuse_node(name, format!("{name} has too many parts"), "use the table's name or alias alone"),
        }
    }
}
