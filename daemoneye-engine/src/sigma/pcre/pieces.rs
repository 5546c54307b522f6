//! An expression in pieces, and the pieces as text of ours.

use super::class;

/// One piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Piece {
    /// A character, and whether the other case of an ASCII letter is as good.
    Char(char, bool),
    Close,
    /// Nothing wide that means the same to both.
    Empty(String),
    /// `$` or `\Z`: the end, or before a line end that is the last character.
    End,
    /// `\R`.
    LineBreak,
    /// `^` of the flag `m`.
    LineStart,
    /// One character of several.
    One(String),
    Open,
    Or,
    /// As it is written, and whether what stands before it may be absent.
    Quantifier(String, bool),
}

/// The text of settled pieces. ASCII letters fold in runs, so that the text stays one that people can read.
pub(in super::super) fn said(pieces: &[Piece]) -> Result<String, String> {
    let mut out = String::new();
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        at += 1;
        match piece {
            Piece::Char(_, true) => {
                let run = run(pieces, at.saturating_sub(1));
                out.push_str("(?i-u:");
                run.iter().for_each(|letter| class::push(&mut out, *letter));
                out.push(')');
                at = at.saturating_add(run.len()).saturating_sub(1);
            }
            Piece::Char(character, false) => class::push(&mut out, *character),
            Piece::Close => out.push(')'),
            Piece::Empty(text) | Piece::One(text) | Piece::Quantifier(text, _) => out.push_str(text),
            Piece::LineBreak => out.push_str(&format!(r"(?:\r\n|{})", class::vertical())),
            Piece::LineStart => out.push_str("(?m:^)"),
            Piece::Open => out.push_str("(?:"),
            Piece::Or => out.push('|'),
            Piece::End => return Err("re: $ is not settled".to_owned()),
        }
    }
    Ok(out)
}

/// Characters from here on of which the first folds, all are ASCII and none but a single one has a quantifier.
fn run(pieces: &[Piece], from: usize) -> Vec<char> {
    let mut run = Vec::new();
    for (at, piece) in pieces.iter().enumerate().skip(from) {
        let Piece::Char(character, folds) = piece else { break };
        let is_quantified = matches!(pieces.get(at.saturating_add(1)), Some(Piece::Quantifier(..)));
        let is_one_way = !folds && character.is_ascii_alphabetic();
        if !character.is_ascii() || is_one_way || (is_quantified && !run.is_empty()) {
            break;
        }
        run.push(*character);
        if is_quantified {
            break;
        }
    }
    run
}
