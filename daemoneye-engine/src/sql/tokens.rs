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
        caps.take(&token.token, token.span.start)?;
    }
    Ok(tokens)
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

#[derive(Default)]
struct Caps {
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
