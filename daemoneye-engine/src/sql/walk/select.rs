//! One SELECT: its list, FROM, WHERE, GROUP BY, HAVING, WINDOW.

use super::super::SqlRefusal;
use super::{Step, Walker};
use datafusion::sql::sqlparser::ast::{
    Distinct, GroupByExpr, NamedWindowDefinition, NamedWindowExpr, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::keywords::Keyword;

impl Walker {
    pub(super) fn select(&mut self, select: &Select) -> Step {
        let Select {
            select_token,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        self.seen(select_token.0.span);
        self.absent(!optimizer_hints.is_empty(), "an optimizer hint", "leave it out")?;
        self.absent(select_modifiers.is_some(), "a SELECT modifier", "leave it out")?;
        self.absent_at(Keyword::TOP, top.is_some() || *top_before_distinct, "TOP", "use LIMIT")?;
        self.absent(exclude.is_some(), "EXCLUDE", "name the columns")?;
        self.absent_at(Keyword::INTO, into.is_some(), "SELECT INTO", "queries only read")?;
        self.absent(!lateral_views.is_empty(), "LATERAL VIEW", "join the tables")?;
        self.absent(prewhere.is_some(), "PREWHERE", "use WHERE")?;
        self.absent(!connect_by.is_empty(), "CONNECT BY", "use ancestry, or join a fixed number of times")?;
        self.absent(!cluster_by.is_empty(), "CLUSTER BY", "use ORDER BY")?;
        self.absent(!distribute_by.is_empty(), "DISTRIBUTE BY", "leave it out")?;
        self.absent(!sort_by.is_empty(), "SORT BY", "use ORDER BY")?;
        self.absent_at(Keyword::QUALIFY, qualify.is_some(), "QUALIFY", "filter in an outer SELECT")?;
        self.absent(value_table_mode.is_some(), "SELECT AS", "leave it out")?;
        match flavor {
            SelectFlavor::Standard => {}
            SelectFlavor::FromFirst | SelectFlavor::FromFirstNoSelect => {
                return self.refuse("FROM before SELECT is not accepted", "begin with SELECT");
            }
        }
        self.absent(projection.is_empty(), "SELECT without columns", "name the columns, or write *")?;
        if from.is_empty() {
            self.scan(1)?;
        }
        // A subquery also sees the columns of the queries around it, so their weight stays below.
        let outer = self.weight;
        for table in from {
            self.table_with_joins(table)?;
        }
        self.distinct(distinct.as_ref())?;
        let mut produced = 1;
        for item in projection {
            produced = produced.max(self.select_item(item)?);
        }
        for condition in [selection, having].into_iter().flatten() {
            self.root(condition)?;
        }
        self.group_by(group_by)?;
        self.named_windows(named_window)?;
        self.weight = outer;
        self.produced = produced;
        Ok(())
    }

    fn distinct(&mut self, distinct: Option<&Distinct>) -> Step {
        match distinct {
            None | Some(Distinct::All | Distinct::Distinct) => Ok(()),
            Some(Distinct::On(keys)) => {
                for key in keys {
                    self.root(key)?;
                }
                Ok(())
            }
        }
    }

    /// How many columns of tables the item stands for.
    fn select_item(&mut self, item: &SelectItem) -> Result<usize, SqlRefusal> {
        match item {
            SelectItem::UnnamedExpr(expr) => self.root(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                self.ident(alias)?;
                self.root(expr)
            }
            SelectItem::ExprWithAliases { expr, aliases: _ } => {
                self.refuse_node(expr, "several aliases for one expression are not accepted", "give it one alias")
            }
            SelectItem::QualifiedWildcard(kind, options) => {
                match kind {
                    SelectItemQualifiedWildcardKind::ObjectName(name) => self.qualifier(name)?,
                    SelectItemQualifiedWildcardKind::Expr(expr) => {
                        return self.refuse_node(expr, "an expression before .* is not accepted", "name the columns");
                    }
                }
                self.wildcard(options)?;
                Ok(self.weight)
            }
            SelectItem::Wildcard(options) => {
                self.wildcard(options)?;
                Ok(self.weight)
            }
        }
    }

    pub(super) fn wildcard(&mut self, options: &WildcardAdditionalOptions) -> Step {
        let WildcardAdditionalOptions {
            wildcard_token,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        self.seen(wildcard_token.0.span);
        let any = opt_ilike.is_some()
            || opt_exclude.is_some()
            || opt_except.is_some()
            || opt_replace.is_some()
            || opt_rename.is_some()
            || opt_alias.is_some();
        self.absent(any, "an option after *", "name the columns")
    }

    fn group_by(&mut self, group_by: &GroupByExpr) -> Step {
        match group_by {
            GroupByExpr::All(_) => self.absent_at(Keyword::ALL, true, "GROUP BY ALL", "name the columns"),
            GroupByExpr::Expressions(keys, modifiers) => {
                self.absent(
                    !modifiers.is_empty(),
                    "ROLLUP, CUBE and GROUPING SETS",
                    "use several queries with UNION ALL",
                )?;
                for key in keys {
                    self.root(key)?;
                }
                Ok(())
            }
        }
    }

    fn named_windows(&mut self, windows: &[NamedWindowDefinition]) -> Step {
        for NamedWindowDefinition(name, window) in windows {
            self.ident(name)?;
            match window {
                NamedWindowExpr::NamedWindow(of) => self.ident(of)?,
                NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec)?,
            }
        }
        Ok(())
    }
}
