//! The condition of a Sigma rule: search identifiers joined by `not`, `and`, `or` and parentheses, `1 of` and `all of`.

use super::Reason;
use super::expr::Expr;

/// Longest condition in bytes; written ones have some hundred.
const MAX_BYTES: usize = 16 * 1024;
/// Deepest nesting of parentheses and `not`; the guard of SQL takes 32.
const MAX_DEPTH: usize = 28;
/// Most parts of a condition once its identifiers stand in it, so that a few names cannot unfold without end.
const MAX_PARTS: usize = 20_000;

/// The search identifiers of a rule by name, each with its condition or everything that is wrong with it.
pub(super) type Identifiers = Vec<(String, Result<Expr, Vec<Reason>>)>;

/// Reads a condition over the identifiers. What is wrong with those that it names goes to `problems`, and with a condition that cannot
/// be read so does what is wrong with any.
pub(super) fn parse(text: &str, identifiers: &Identifiers, problems: &mut Vec<Reason>) -> Result<Expr, String> {
    let parsed = parsed(text, identifiers, problems);
    if parsed.is_err() {
        problems.extend(identifiers.iter().filter_map(|(_, expr)| expr.as_ref().err()).flatten().cloned());
    }
    parsed
}

fn parsed(text: &str, identifiers: &Identifiers, problems: &mut Vec<Reason>) -> Result<Expr, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the condition has {} bytes, more than {MAX_BYTES}", text.len()));
    }
    let words = words(text)?;
    let mut parser = Parser { words: &words, at: 0, depth: 0, parts: 0, identifiers, problems };
    let expr = parser.either()?;
    match parser.peek() {
        None => Ok(expr),
        Some(word) => Err(format!("the condition cannot be read from {word:?} on: and, or or the end is missing")),
    }
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    for character in text.chars() {
        match character {
            '(' | ')' => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                words.push(character.to_string());
            }
            '|' => {
                return Err(
                    "the pipe of an aggregation (| count, | near) is not supported: write a correlation".to_owned()
                );
            }
            c if c.is_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '?' | '$') => word.push(c),
            other => return Err(format!("the condition holds the character {other:?}")),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    if words.is_empty() { Err("the condition is empty".to_owned()) } else { Ok(words) }
}

struct Parser<'a> {
    words: &'a [String],
    at: usize,
    depth: usize,
    parts: usize,
    identifiers: &'a Identifiers,
    problems: &'a mut Vec<Reason>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).map(String::as_str)
    }

    /// Takes the word if it stands next.
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Result<Expr, String> {
        let mut parts = vec![self.both()?];
        while self.take("or") {
            parts.push(self.both()?);
        }
        Ok(Expr::Any(parts))
    }

    fn both(&mut self) -> Result<Expr, String> {
        let mut parts = vec![self.negated()?];
        while self.take("and") {
            parts.push(self.negated()?);
        }
        Ok(Expr::All(parts))
    }

    fn negated(&mut self) -> Result<Expr, String> {
        let mut negated = false;
        while self.take("not") {
            negated = !negated;
        }
        let part = self.part()?;
        Ok(if negated { part.not() } else { part })
    }

    fn part(&mut self) -> Result<Expr, String> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(format!("the condition has more than {MAX_DEPTH} parentheses nested"));
            }
            let inner = self.either()?;
            self.depth -= 1;
            return if self.take(")") {
                Ok(inner)
            } else {
                Err("the condition lacks a closing parenthesis".to_owned())
            };
        }
        let Some(word) = self.peek().map(str::to_owned) else { return Err("the condition ends too early".to_owned()) };
        self.at += 1;
        if !self.peek().is_some_and(|next| next.eq_ignore_ascii_case("of")) || self.is_identifier(&word) {
            return self.identifier(&word);
        }
        self.at += 1;
        let Some(pattern) = self.peek().map(str::to_owned) else {
            return Err(format!("{word} of: the pattern is missing"));
        };
        self.at += 1;
        let parts = self.matching(&pattern)?;
        match word.to_ascii_lowercase().as_str() {
            "1" | "any" => Ok(Expr::Any(parts)),
            "all" => Ok(Expr::All(parts)),
            _ => Err(format!("{word} of: only 1 of and all of are known")),
        }
    }

    fn is_identifier(&self, name: &str) -> bool {
        self.identifiers.iter().any(|(known, _)| known == name)
    }

    fn identifier(&mut self, name: &str) -> Result<Expr, String> {
        if matches!(name, ")") || ["and", "or", "not", "of"].iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return Err(format!("the condition has {name:?} where a search identifier should be"));
        }
        let found = self.identifiers.iter().find(|(known, _)| known == name);
        let (_, expr) =
            found.ok_or_else(|| format!("the condition names {name}, and there is no such search identifier"))?;
        self.copied(expr)
    }

    /// What the pattern selects; what begins with an underscore only where the pattern does.
    fn matching(&mut self, pattern: &str) -> Result<Vec<Expr>, String> {
        let them = pattern.eq_ignore_ascii_case("them") && !self.is_identifier(pattern);
        let is_meant = |name: &str| pattern.starts_with('_') || !name.starts_with('_');
        let fits = |name: &str| is_meant(name) && (them || fits(pattern, name));
        let identifiers = self.identifiers;
        let found: Vec<_> = identifiers.iter().filter(|(name, _)| fits(name)).collect();
        if found.is_empty() {
            return Err(format!("no search identifier fits {pattern}"));
        }
        found.into_iter().map(|(_, expr)| self.copied(expr)).collect()
    }

    fn copied(&mut self, expr: &Result<Expr, Vec<Reason>>) -> Result<Expr, String> {
        let expr = match expr {
            Ok(expr) => expr,
            Err(problems) => {
                self.problems.extend_from_slice(problems);
                return Ok(Expr::Constant(false));
            }
        };
        self.parts = self.parts.saturating_add(expr.size());
        if self.parts > MAX_PARTS {
            return Err(format!("the condition has more than {MAX_PARTS} parts"));
        }
        Ok(expr.clone())
    }
}

/// Whether a name fits a pattern in which `*` stands for any run.
fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at.saturating_add(piece.len())..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(condition: &str) -> Result<String, String> {
        let names = ["a", "b", "c", "sel_1", "sel_2", "_hidden"];
        let identifiers = names.iter().map(|name| ((*name).to_owned(), Ok(Expr::Leaf((*name).to_owned())))).collect();
        parse(condition, &identifiers, &mut Vec::new()).map(|expr| expr.folded().sql(0))
    }

    #[test]
    fn not_binds_tighter_than_and_and_that_than_or() {
        assert_eq!(sql("a or b and not c").unwrap(), "a OR b AND (c) IS NOT TRUE");
        assert_eq!(sql("(a or b) and c").unwrap(), "(a OR b) AND c");
        assert_eq!(sql("not (a and b)").unwrap(), "(a AND b) IS NOT TRUE");
        assert_eq!(sql("NOT NOT a AND b").unwrap(), "a AND b");
    }

    #[test]
    fn patterns_select_and_them_leaves_out_what_is_hidden() {
        assert_eq!(sql("1 of sel_*").unwrap(), "sel_1 OR sel_2");
        assert_eq!(sql("all of sel*").unwrap(), "sel_1 AND sel_2");
        assert_eq!(sql("a and not 1 of sel_*").unwrap(), "a AND (sel_1 OR sel_2) IS NOT TRUE");
        assert_eq!(sql("1 of them").unwrap(), "a OR b OR c OR sel_1 OR sel_2");
        assert_eq!(sql("all of *_1").unwrap(), "sel_1");
        assert_eq!(sql("1 of _hid*").unwrap(), "_hidden");
        assert_eq!(sql("all of *").unwrap(), "a AND b AND c AND sel_1 AND sel_2");
        assert!(sql("1 of *hidden").unwrap_err().contains("no search identifier fits"));
    }

    #[test]
    fn what_is_wrong_is_told_by_name() {
        for (condition, word) in [
            ("a |  count() > 5", "pipe"),
            ("a and", "ends"),
            ("d", "names d"),
            ("1 of x*", "x*"),
            ("2 of sel*", "2 of"),
            ("(a", "parenthesis"),
            ("a b", "\"b\""),
            ("", "empty"),
            ("a and or b", "\"or\""),
            (")", "\")\""),
        ] {
            assert!(sql(condition).unwrap_err().contains(word), "{condition}: {:?}", sql(condition));
        }
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        assert!(sql(&deep).unwrap_err().contains("nested"));
    }
}
