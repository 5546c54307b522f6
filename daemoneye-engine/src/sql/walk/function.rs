//! Function calls: by name from the allow-list, with the arguments and clauses that its class takes.

use super::super::names::{self, Class};
use super::super::strict;
use super::{Step, Walker};
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, ObjectNamePart, Value, WindowType,
};

impl Walker {
    pub(super) fn function(&mut self, function: &Function) -> Step {
        let Function { name, uses_odbc_syntax, parameters, args, filter, null_treatment, over, within_group } =
            function;
        if names::is_user_column(function) {
            self.referred(1);
            return name.0.iter().filter_map(ObjectNamePart::as_ident).try_for_each(|ident| self.ident(ident));
        }
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
            return self.refuse_node(
                name,
                format!("there is no function {name}"),
                "write the function's name without a schema",
            );
        };
        self.ident(ident)?;
        if ident.quote_style.is_some() {
            return self.refuse_node(
                name,
                format!("a quoted function name is not accepted: {name}"),
                "write it without quotes",
            );
        }
        let plain = names::normal(ident);
        if plain == names::DATETIME {
            return self.datetime(function);
        }
        let Some(class) = names::class_of(&plain) else {
            return self.refuse_node(
                name,
                format!("there is no function {name}"),
                &(self.instead_of_function)(&plain),
            );
        };
        self.absent(*uses_odbc_syntax, "{fn …}", "write the function alone")?;
        self.absent(!matches!(parameters, FunctionArguments::None), "a second list of arguments", "leave it out")?;
        self.absent(!within_group.is_empty(), "WITHIN GROUP", "use median(x)")?;
        self.clauses(class, filter.is_some(), null_treatment.is_some(), over.is_some())?;
        self.arguments(&plain, class, args)?;
        if let Some(condition) = filter {
            self.expr(condition)?;
        }
        match over {
            None => Ok(()),
            Some(WindowType::WindowSpec(spec)) => self.window_spec(spec),
            Some(WindowType::NamedWindow(name)) => self.ident(name),
        }
    }

    fn clauses(&self, class: Class, filter: bool, nulls: bool, over: bool) -> Step {
        self.absent(filter && class != Class::Aggregate, "FILTER here", "use CASE WHEN")?;
        self.absent(nulls && class == Class::Scalar, "IGNORE NULLS here", "use coalesce")?;
        self.absent(over && class == Class::Scalar, "OVER after this function", "use it without OVER")?;
        if class == Class::Window && !over {
            return self.refuse("a window function needs OVER", "write OVER (PARTITION BY … ORDER BY …)");
        }
        Ok(())
    }

    fn arguments(&mut self, name: &str, class: Class, args: &FunctionArguments) -> Step {
        let list = match args {
            // `current_date` is written without parentheses.
            FunctionArguments::None if name == "current_date" => return Ok(()),
            FunctionArguments::None => {
                return self.refuse(format!("{name} without arguments"), format!("write {name}(…)"));
            }
            FunctionArguments::Subquery(_) => {
                return self.refuse("a query as an argument is not accepted", "put it in parentheses, or use WITH");
            }
            FunctionArguments::List(list) => list,
        };
        let FunctionArgumentList { duplicate_treatment, args, clauses } = list;
        self.absent(
            duplicate_treatment.is_some() && class != Class::Aggregate,
            "DISTINCT in this function",
            "use it in an aggregate",
        )?;
        if name == "count" && matches!(duplicate_treatment, Some(DuplicateTreatment::Distinct)) && args.len() > 1 {
            let hint = "count(DISTINCT concat_ws(' ', a, b)), or count(*) over (SELECT DISTINCT a, b …)";
            return self.refuse("count(DISTINCT …) takes one value", hint);
        }
        let is_all = |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
        if args.len() > 1 && args.iter().any(is_all) {
            return self.refuse(format!("{name}(*) takes nothing else"), "write count(*)");
        }
        for clause in clauses {
            self.clause(class, clause)?;
        }
        for (position, arg) in args.iter().enumerate() {
            self.argument(name, position, arg)?;
        }
        Ok(())
    }

    fn clause(&mut self, class: Class, clause: &FunctionArgumentClause) -> Step {
        match clause {
            FunctionArgumentClause::OrderBy(keys) if class == Class::Aggregate => self.sort_keys(keys),
            FunctionArgumentClause::IgnoreOrRespectNulls(_) if class != Class::Scalar => Ok(()),
            FunctionArgumentClause::OrderBy(_)
            | FunctionArgumentClause::IgnoreOrRespectNulls(_)
            | FunctionArgumentClause::Limit(_)
            | FunctionArgumentClause::OnOverflow(_)
            | FunctionArgumentClause::Having(_)
            | FunctionArgumentClause::Separator(_)
            | FunctionArgumentClause::JsonNullClause(_)
            | FunctionArgumentClause::JsonReturningClause(_) => {
                self.refuse("this clause inside a function is not accepted", "leave it out")
            }
        }
    }

    fn argument(&mut self, name: &str, position: usize, arg: &FunctionArg) -> Step {
        let arg = match arg {
            FunctionArg::Unnamed(arg) => arg,
            FunctionArg::Named { name: _, arg: _, operator: _ } => {
                return self.refuse("named arguments are not accepted", "give the arguments in order");
            }
            FunctionArg::ExprNamed { name, arg: _, operator: _ } => {
                return self.refuse_node(name, "named arguments are not accepted", "give the arguments in order");
            }
        };
        match arg {
            FunctionArgExpr::Expr(expr) if position > 0 && name.starts_with("regexp_") => self.pattern(expr),
            FunctionArgExpr::Expr(expr) if position == 1 && name == "re_match" => self.pattern(expr),
            FunctionArgExpr::Expr(expr) if position > 0 && strict::is_strict(name) => {
                self.value_of(name, position, expr)
            }
            FunctionArgExpr::Expr(expr) => self.expr(expr),
            FunctionArgExpr::Wildcard if name == "count" => Ok(()),
            FunctionArgExpr::Wildcard
            | FunctionArgExpr::QualifiedWildcard(_)
            | FunctionArgExpr::WildcardWithOptions(_) => {
                self.refuse(format!("{name}(*) is not accepted"), "only count(*) takes *; name a column")
            }
        }
    }

    /// A value of a function that is compiled once: known before it runs, and right.
    fn value_of(&mut self, name: &str, position: usize, expr: &Expr) -> Step {
        let Expr::Value(value) = expr else {
            return self.refuse_node(
                expr,
                format!("a value of {name} must be a string literal or a parameter"),
                "write it out, or bind it as $1",
            );
        };
        match &value.value {
            Value::SingleQuotedString(text) => match strict::mistake(name, position, text) {
                None => self.value(value),
                Some(mistake) => self.refuse_node(expr, mistake, "see the function's values in the documentation"),
            },
            Value::Placeholder(_) => self.value(value),
            _ => self.refuse_node(expr, format!("a value of {name} must be text"), "write it as '…'"),
        }
    }

    /// `datetime('now', '-30 minutes')`: string literals only, so that it can be lowered.
    fn datetime(&mut self, function: &Function) -> Step {
        let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } =
            function;
        let extra = filter.is_some() || null_treatment.is_some() || over.is_some() || !within_group.is_empty();
        self.absent(
            extra || !matches!(parameters, FunctionArguments::None),
            "a clause after datetime(…)",
            "leave it out",
        )?;
        let FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses }) = args else {
            return self.refuse_node(
                name,
                "datetime takes a time and modifiers",
                "write datetime('now', '-30 minutes')",
            );
        };
        self.absent(!clauses.is_empty(), "a clause inside datetime(…)", "leave it out")?;
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => self.value(value)?,
                _ => {
                    return self.refuse_node(
                        name,
                        "datetime takes string literals",
                        "write datetime('now', '-30 minutes')",
                    );
                }
            }
        }
        Ok(())
    }
}
