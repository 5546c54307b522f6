//! Commands around proofs.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::LedgerDir;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli audit prove --event 5f1c0e6a9d3b47c2a1e8f00db4c6d7e9 --output proof.json\n  \
                  daemoneye-cli audit prove --seq 4711 --output proof.json\n  \
                  daemoneye-cli audit prove --alert 019b1f6e-8c1a-7c3e-9d7e-0a1b2c3d4e5f --output proof.json --store /mnt/evidence/daemoneye\n  \
                  daemoneye-cli audit prove --from 2026-01-31T02:00:00Z --to 2026-01-31T03:00:00Z --output night.json --since kept.note\n\
                  Whoever has the file and the key that `daemoneye-cli audit key` prints verifies it with `audit verify-proof`."
)]
pub(crate) struct Prove {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The end of that time
    #[arg(long, value_name = "TIME", requires = "from")]
    pub(crate) to: Option<String>,
    /// The new file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) since: Since,
    #[command(flatten)]
    pub(crate) ledger: LedgerDir,
}

/// For whoever kept a checkpoint.
#[derive(Debug, Args)]
pub(crate) struct Since {
    /// A checkpoint that the reader of the file has kept: a signed note, or the line of a log that holds one. The file then shows that
    /// the ledger goes on from it
    #[arg(long, value_name = "NOTE", value_hint = ValueHint::FilePath)]
    pub(crate) since: Option<PathBuf>,
}

/// What a reader of a file knows from elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Known {
    /// The ledger's key, as `audit key` printed it when the host was set up
    #[arg(long, value_name = "KEY")]
    pub(crate) vkey: String,
    /// A checkpoint that had left the host: a signed note, or the line of a log that holds one. A ledger that was rewritten and signed
    /// again is found only with one; a file for an older one is made with `--since`
    #[arg(long, value_name = "NOTE", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// An entry of the ledger, by its number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seq: Option<u64>,
    /// An alert, by its id
    #[arg(long, value_name = "ID")]
    pub(crate) alert: Option<String>,
    /// The events of a process, by its entity_id, or one event by its position, such as procmond:3:18211
    #[arg(long, value_name = "ENTITY")]
    pub(crate) event: Option<String>,
    /// All that the ledger says of a time, also that nothing happened: 7d, 12h, 30m before now, or a time (RFC 3339)
    #[arg(long, value_name = "TIME", requires = "to")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli audit verify-proof proof.json --vkey 'daemoneye/4f3e/audit+c74f20a3+ARpc2Q…'\n  \
                  daemoneye-cli audit verify-proof proof.json --vkey \"$(cat host.vkey)\" --checkpoint kept.note\n\
                  Needs nothing but the file and the key. What was rewritten and signed again on the host is found only with a checkpoint \
                  that had left it. Exits with 76 when it proves nothing. Of a time: with 0 when it proves silence, with 1 when somebody \
                  watched all of it and something happened, with 3 when that is not shown."
)]
pub(crate) struct VerifyProof {
    /// What `audit prove` wrote
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) known: Known,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: daemoneye-cli alerts evidence 019b1f6e-8c1a-7c3e-9d7e-0a1b2c3d4e5f --output evidence.json\n\
                  The file has the alert as it was raised, its rule, the events that caused it, their ancestors, what was not seen \
                  around that time, and the proof of all of it; verify it anywhere with `alerts verify-evidence`."
)]
pub(crate) struct Evidence {
    /// Its id as `alerts list` prints it, or the first 4 or more characters of it
    pub(crate) id: String,
    /// The new file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) since: Since,
    #[command(flatten)]
    pub(crate) ledger: LedgerDir,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: daemoneye-cli alerts verify-evidence evidence.json --vkey \"$(cat host.vkey)\" --checkpoint kept.note\n\
                  Needs nothing but the file and the key. Exits with 76 when something in it is not proven, with 3 when it lacks \
                  something."
)]
pub(crate) struct VerifyEvidence {
    /// What `alerts evidence` wrote
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) known: Known,
}
