//! The first gate: how large and how nested a statement may be, decided on its tokens.
//!
//! Everything after this gate recurses over the statement. The caps keep that recursion inside the stacks that we give it;
//! they are far above what a person or a rule converter writes.

use super::SqlRefusal;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// Bytes of a statement as it is written; the values of the lists that it names come later.
pub(crate) const MAX_SQL_BYTES: usize = daemoneye_lib::frame::STATEMENT_LIMIT_BYTES;
/// The same of a rule, whose values may stand in it: as much as a rule file has. A rule comes from the host's own files, not from
/// whoever asks. One of 3,000 hashes (225 KB) loads in 0.6 s and takes 14 µs for an event that it has to be evaluated on, not optimised.
pub(crate) const MAX_RULE_SQL_BYTES: usize = 256 * 1024;
/// Parentheses, brackets and braces inside one another.
const MAX_NESTING: usize = 32;
/// CASE inside CASE.
const MAX_CASE: usize = 8;
/// Prefix operators in a row: each is a level of the tree without a parenthesis.
const MAX_PREFIX_RUN: usize = 8;
/// AND and OR of a statement. They are balanced into a shallow tree, so only parsing pays; a converted rule has under 200.
const MAX_CONNECTIVES: usize = 2_000;
/// Tokens of one operand of AND and OR, or of one item of a list, what stands in parentheses counted with its longest item. Operators
/// in a row are a tree as deep as the row is long, and the parser takes them in a loop, so nothing else bounds it before the walk
/// does: 8,000 times `+ 1` overflowed a stack of 64 MiB. An expression of as many levels as the walk accepts has under 800.
const MAX_RUN: usize = 1_000;
/// Joins of a statement; planning tries to reorder them.
const MAX_JOINS: usize = 16;
/// UNIONs of a statement.
const MAX_UNIONS: usize = 32;
/// Words that begin a nested type without a parenthesis, and brackets; no accepted statement has any.
const MAX_TYPE_WORDS: usize = 8;
/// Levels that the parser may take; one parenthesis costs up to four.
pub(crate) const RECURSION_LIMIT: usize = 160;

/// The statement's tokens, if they keep every cap.
pub(crate) fn capped(sql: &str, is_rule: bool) -> Result<Vec<TokenWithSpan>, SqlRefusal> {
    let (most, hint) = if is_rule {
        (MAX_RULE_SQL_BYTES, "put long lists of values into a list file: x IN (list('…')), ci_contains(x, list('…'))")
    } else {
        (MAX_SQL_BYTES, "bind long lists as $1, $2, … or split the query")
    };
    if sql.len() > most {
        return Err(SqlRefusal::whole(format!("the statement has {} bytes, more than {most}", sql.len()), hint));
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| SqlRefusal::at(error.location, error.message, "close what is open"))?;
    let mut caps = Caps::default();
    for token in &tokens {
        if let Token::Word(word) = &token.token
            && word.quote_style.is_none()
        {
            lookalike(&word.value, token.span.start)?;
        }
        caps.take(&token.token, token.span.start)?;
    }
    Ok(tokens)
}

/// Characters that look like a space or a quote, come with text from a page or a mail, and are read as part of a name.
const LOOKALIKES: [(char, &str, &str); 7] = [
    ('\u{a0}', "a no-break space", "write a plain space"),
    ('\u{200b}', "a space of no width", "leave it out"),
    ('\u{feff}', "a byte order mark", "leave it out"),
    ('\u{2018}', "a typographic quote", "write '…'"),
    ('\u{2019}', "a typographic quote", "write '…'"),
    ('\u{201c}', "a typographic quote", "write '…'"),
    ('\u{201d}', "a typographic quote", "write '…'"),
];

fn lookalike(word: &str, at: Location) -> Result<(), SqlRefusal> {
    for (column, sign) in (at.column..).zip(word.chars()) {
        if let Some((_, name, hint)) = LOOKALIKES.iter().find(|(known, ..)| *known == sign) {
            let message = format!("{name} (U+{:04X}) is not accepted outside of quotes", u32::from(sign));
            return Err(SqlRefusal::at(Location { column, ..at }, message, *hint));
        }
    }
    Ok(())
}

/// Where the last word ends: after it there may be lines that hold nothing.
pub(super) fn end(tokens: &[TokenWithSpan]) -> Location {
    let last = tokens.iter().rev().find(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    last.map_or(Location { line: 1, column: 1 }, |token| token.span.end)
}

/// Clauses of other databases that the syntax tree has no place for.
const CLAUSES: [Keyword; 7] =
    [Keyword::ALL, Keyword::ANY, Keyword::FETCH, Keyword::FOR, Keyword::INTO, Keyword::QUALIFY, Keyword::TOP];

/// The places of such words.
pub(super) fn clauses(tokens: &[TokenWithSpan]) -> Vec<(Keyword, Location)> {
    let clause = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() && CLAUSES.contains(&word.keyword) => {
            Some((word.keyword, token.span.start))
        }
        _ => None,
    };
    tokens.iter().filter_map(clause).collect()
}

/// Texts in single quotes where a table is named, and their places: the syntax tree has none for them.
pub(crate) fn texts(tokens: &[TokenWithSpan]) -> Vec<(String, Location)> {
    let mut before_table = false;
    let mut texts = Vec::new();
    for token in tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))) {
        if let (Token::SingleQuotedString(text), true) = (&token.token, before_table) {
            texts.push((text.clone(), token.span.start));
        }
        before_table =
            matches!(&token.token, Token::Word(word) if matches!(word.keyword, Keyword::FROM | Keyword::JOIN));
    }
    texts
}

/// Where a second statement begins: some statements carry no place of their own.
pub(crate) fn second_statement(tokens: &[TokenWithSpan]) -> Option<Location> {
    let written = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let mut tokens = written.skip_while(|token| token.token == Token::SemiColon);
    tokens.find(|token| token.token == Token::SemiColon)?;
    tokens.find(|token| token.token != Token::SemiColon).map(|token| token.span.start)
}

/// Tokens since the last comma, AND, OR or the like of one level of parentheses.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    now: usize,
    /// The longest before.
    longest: usize,
}

impl Run {
    fn end(&mut self) {
        self.longest = self.longest.max(self.now);
        self.now = 0;
    }
}

#[derive(Default)]
struct Caps {
    run: Run,
    /// Of the levels around it.
    around: Vec<Run>,
    nesting: usize,
    cases: usize,
    prefix_run: usize,
    connectives: usize,
    joins: usize,
    unions: usize,
    type_words: usize,
}

impl Caps {
    fn take(&mut self, token: &Token, at: Location) -> Result<(), SqlRefusal> {
        match token {
            Token::Whitespace(_) => return Ok(()),
            _ => self.in_row(token, at)?,
        }
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                raise(
                    &mut self.nesting,
                    MAX_NESTING,
                    at,
                    "parentheses nested",
                    "use WITH, or flatten the conditions",
                )?;
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.nesting = self.nesting.saturating_sub(1),
            Token::Word(word) if word.quote_style.is_none() => self.word(word.keyword, at)?,
            _ => {}
        }
        if matches!(token, Token::LBracket | Token::ShiftLeft) {
            raise(&mut self.type_words, MAX_TYPE_WORDS, at, "brackets", "there are no arrays here")?;
        }
        if prefix(token) {
            raise(&mut self.prefix_run, MAX_PREFIX_RUN, at, "prefix operators in a row", "one NOT or minus is enough")
        } else {
            self.prefix_run = 0;
            Ok(())
        }
    }

    /// Bounds how many operators can stand in a row.
    fn in_row(&mut self, token: &Token, at: Location) -> Result<(), SqlRefusal> {
        let keyword = match token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match (token, keyword) {
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Keyword::CASE) => {
                self.around.push(std::mem::take(&mut self.run));
            }
            (Token::RParen | Token::RBracket | Token::RBrace, _) | (_, Keyword::END) => {
                self.run.end();
                let inside = std::mem::replace(&mut self.run, self.around.pop().unwrap_or_default());
                self.run.now = self.run.now.saturating_add(inside.longest);
            }
            (Token::Comma | Token::SemiColon, _)
            | (_, Keyword::AND | Keyword::OR | Keyword::XOR | Keyword::WHEN | Keyword::THEN | Keyword::ELSE)
            | (_, Keyword::SELECT | Keyword::WHERE | Keyword::HAVING) => self.run.end(),
            _ => {}
        }
        self.run.now = self.run.now.saturating_add(1);
        // A name that is spelled CASE opens a level too, so what is around counts.
        let row = self.around.iter().map(|run| run.now).fold(self.run.now, usize::saturating_add);
        if row <= MAX_RUN {
            return Ok(());
        }
        let hint = "use concat(…) or IN (…), or split it with AND and OR";
        Err(SqlRefusal::at(at, format!("more than {MAX_RUN} words and operators in a row"), hint))
    }

    fn word(&mut self, keyword: Keyword, at: Location) -> Result<(), SqlRefusal> {
        match keyword {
            Keyword::CASE => raise(&mut self.cases, MAX_CASE, at, "CASE nested", "use one CASE with several WHEN"),
            Keyword::END => {
                self.cases = self.cases.saturating_sub(1);
                Ok(())
            }
            Keyword::AND | Keyword::OR | Keyword::XOR => raise(
                &mut self.connectives,
                MAX_CONNECTIVES,
                at,
                "AND and OR",
                "use IN (…) for lists of values, or bind them as parameters",
            ),
            Keyword::JOIN => raise(&mut self.joins, MAX_JOINS, at, "joins", "split the query"),
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
                raise(&mut self.unions, MAX_UNIONS, at, "set operations", "use IN (…) or OR")
            }
            Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP | Keyword::TABLE => {
                raise(&mut self.type_words, MAX_TYPE_WORDS, at, "nested types", "use the plain types")
            }
            _ => Ok(()),
        }
    }
}

/// What the parser reads as an operator before its operand, and therefore recurses on.
fn prefix(token: &Token) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_none() => matches!(
            word.keyword,
            Keyword::NOT | Keyword::INTERVAL | Keyword::PRIOR | Keyword::CONNECT_BY_ROOT | Keyword::EXPLAIN
        ),
        Token::Plus | Token::Minus | Token::Tilde | Token::ExclamationMark | Token::DoubleExclamationMark => true,
        Token::AtSign | Token::PGSquareRoot | Token::PGCubeRoot | Token::Sharp | Token::AtDashAt => true,
        _ => false,
    }
}

fn raise(count: &mut usize, cap: usize, at: Location, what: &str, hint: &str) -> Result<(), SqlRefusal> {
    *count = count.saturating_add(1);
    if *count > cap { Err(SqlRefusal::at(at, format!("more than {cap} {what}"), hint)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::check::check;

    /// Each of them is a tree as deep as it is long; a stack that overflows ends the whole program.
    #[test]
    fn a_row_of_operators_is_refused_before_anything_recurses_over_it() {
        let group = |inner: String| format!("({inner}){}", "+1".repeat(900));
        for expression in [
            format!("1{}", "+1".repeat(30_000)),
            format!("pid{}", "::text".repeat(10_000)),
            format!("memfd{}", " IS TRUE".repeat(7_000)),
            format!("memfd{}", " ISNULL".repeat(8_000)),
            format!("pid{}", " IS DISTINCT FROM 1".repeat(3_000)),
            format!("abs(1, 2){}", "+abs(1, 2)".repeat(5_000)),
            format!("1{}", "+CASE WHEN TRUE THEN 1 END".repeat(2_000)),
            format!("1{}", "+(1 AND 1)".repeat(1_900)),
            (0..20).fold("1".to_owned(), |inner, _| group(inner)),
            format!("1{}", format!("{}+x.case", "+1".repeat(450)).repeat(8)),
        ] {
            let refusal = check(&format!("SELECT {expression} FROM process_events")).unwrap_err();
            assert!(refusal.message.starts_with("more than 1000 words and operators"), "{expression:.40}: {refusal}");
        }
        let wide = (0..2_000).map(|at| format!("pid + 1 = {at}")).collect::<Vec<_>>().join(" OR ");
        let long = format!("1{}", "+1".repeat(450));
        let deep = check(&format!("SELECT pid FROM process_events WHERE {wide} OR {long} = 1")).unwrap_err();
        assert!(deep.message.starts_with("an expression of more than 96 levels"), "{deep}");
        let values = (0..8_000).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
        check(&format!("SELECT pid FROM process_events WHERE pid IN ({values})")).unwrap();
        check(&format!("SELECT concat('a'{}) FROM process_events", " || 'a'".repeat(90))).unwrap();
    }
}
