//! The anchors and `\R` in words of ours. PCRE decides them by looking ahead, which ours cannot; what stands behind them decides
//! whether it can be said without.

use super::class::VERTICAL;
use super::pieces::Piece;

/// What has to come after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// At some place behind it, this character.
    Char(char),
    /// Nothing has to.
    End,
    Unknown,
}

/// The pieces with every anchor decided.
pub(super) fn settled(pieces: Vec<Piece>) -> Result<Vec<Piece>, String> {
    let mut settled = Vec::with_capacity(pieces.len());
    for (at, piece) in pieces.iter().enumerate() {
        let behind = at.saturating_add(1);
        settled.push(match piece {
            // The end or one line end is left. What has to come after it can only be that line end.
            Piece::End => match next(&pieces, behind) {
                Next::End => Piece::Empty(r"\n?\z".to_owned()),
                Next::Char(character) if character != '\n' => Piece::Empty(r"\z".to_owned()),
                _ => return Err("re: $ before something that may be a line end is not built".to_owned()),
            },
            // Ours also stands behind a last line end; what has to take a character cannot.
            Piece::LineStart if !consumes(pieces.get(behind..).unwrap_or_default()) => {
                return Err("re: ^ with m before what may be empty is not built".to_owned());
            }
            // Theirs never takes the first half of a pair alone. That shows where a second half would be taken next.
            Piece::LineBreak => {
                let behind = match pieces.get(behind) {
                    Some(Piece::Quantifier(count, _)) if count.starts_with('{') => {
                        return Err(format!(r"re: \R{count} is not built"));
                    }
                    Some(Piece::Quantifier(..)) => behind.saturating_add(1),
                    _ => behind,
                };
                let is_end = |piece: Option<&Piece>| matches!(piece, None | Some(Piece::End));
                let breaks = |character: &char| VERTICAL.iter().any(|(a, b)| (a..=b).contains(&character));
                let is_mandatory = !matches!(pieces.get(behind.saturating_add(1)), Some(Piece::Quantifier(_, true)));
                match pieces.get(behind) {
                    Some(Piece::Char(character, _)) if is_mandatory && !breaks(character) => piece.clone(),
                    last if is_end(last) && (last.is_none() || behind.saturating_add(1) == pieces.len()) => {
                        piece.clone()
                    }
                    _ => return Err(r"re: \R before something that may be a line end is not built".to_owned()),
                }
            }
            other => other.clone(),
        });
    }
    Ok(settled)
}

/// What has to come from a place on. Groups that end there may begin again, which takes no more than they took.
fn next(pieces: &[Piece], from: usize) -> Next {
    let mut at = from;
    while let Some(piece) = pieces.get(at) {
        let behind = at.saturating_add(1);
        let may_be_absent = matches!(pieces.get(behind), Some(Piece::Quantifier(_, true)));
        at = match piece {
            Piece::End => behind,
            Piece::Close => match pieces.get(behind) {
                Some(Piece::Quantifier(..)) => behind.saturating_add(1),
                _ => behind,
            },
            Piece::Or => closing(pieces, behind),
            Piece::Char(..) | Piece::One(_) | Piece::LineBreak if may_be_absent => behind.saturating_add(1),
            Piece::Char(character, _) => return Next::Char(*character),
            _ => return Next::Unknown,
        };
    }
    Next::End
}

/// Where the group around a place closes; the end where there is none.
fn closing(pieces: &[Piece], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, piece) in pieces.iter().enumerate().skip(from) {
        match piece {
            Piece::Open => depth = depth.saturating_add(1),
            Piece::Close if depth == 0 => return at,
            Piece::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    pieces.len()
}

/// Whether whatever fits these pieces has a character, as far as it can be told; groups that end among them go on behind.
fn consumes(pieces: &[Piece]) -> bool {
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        let behind = at.saturating_add(1);
        at = match piece {
            Piece::Char(..) | Piece::LineBreak | Piece::One(_) => {
                if !matches!(pieces.get(behind), Some(Piece::Quantifier(_, true))) {
                    return true;
                }
                behind
            }
            Piece::Open => {
                let close = closing(pieces, behind);
                let may_be_absent = matches!(pieces.get(close.saturating_add(1)), Some(Piece::Quantifier(_, true)));
                if !may_be_absent && branches(pieces.get(behind..close).unwrap_or_default()).all(consumes) {
                    return true;
                }
                close.saturating_add(1)
            }
            Piece::Or => closing(pieces, behind),
            _ => behind,
        };
    }
    false
}

/// The parts between the signs of alternation that stand in no group of their own.
fn branches(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    let mut depth = 0_usize;
    pieces.split(move |piece| {
        match piece {
            Piece::Open => depth = depth.saturating_add(1),
            Piece::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *piece == Piece::Or
    })
}
