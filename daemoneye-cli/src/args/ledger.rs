//! The ledger's commands.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Debug, Args)]
pub(crate) struct LedgerDir {
    /// The ledger's directory; otherwise `audit` in --data-dir, or where the agent says that it lies
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) audit_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli audit verify\n  daemoneye-cli audit verify --audit-dir /mnt/evidence/daemoneye/audit \
                  --checkpoint checkpoint.note --vkey \"$(cat host.vkey)\"\n\
                  A ledger that was rewritten and signed again on its host is found only with a checkpoint that had left it.\n\
                  With --store DIR the copied store is compared with its ledger too: events, alerts and rows of coverage that were \
                  deleted, changed or put in are named, and what retention took is not taken for that. --rows does it for a running agent."
)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) ledger: LedgerDir,
    /// A checkpoint that left the host: a signed note, or the line of the system's log that holds one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Also compare every event, alert and row of coverage that the running agent has stored with the ledger
    #[arg(long)]
    pub(crate) rows: bool,
    /// A key of this ledger, as `audit key` printed it; without it the ledger's own first key is believed
    #[arg(long, value_name = "KEY")]
    pub(crate) vkey: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: daemoneye-cli audit key > host.vkey\n\
                        Keep it where this host cannot change it: with it anybody verifies what the host exports, also after rotations.")]
pub(crate) struct Key {
    #[command(flatten)]
    pub(crate) ledger: LedgerDir,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli audit checkpoint > checkpoint.note\n  daemoneye-cli audit checkpoint --qr"
)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) ledger: LedgerDir,
    /// As a code that a camera reads, for hosts without a network
    #[arg(long)]
    pub(crate) qr: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: daemoneye-cli audit export --tiles /mnt/usb/tiles\n\
                        The directory is a static log as c2sp.org/tlog-tiles describes it; its tools verify it unchanged.")]
pub(crate) struct ExportTiles {
    #[command(flatten)]
    pub(crate) ledger: LedgerDir,
    /// The new directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) tiles: PathBuf,
}
