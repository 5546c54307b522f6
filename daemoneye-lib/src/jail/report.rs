//! The jail in words: for `health`, the ledger and the error that names a missing layer.

use serde::{Deserialize, Serialize};

/// One independent restriction; each still denies when another one is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Only the capabilities of the plan, in no set any other.
    Capabilities,
    /// Files and ports by the kernel's Landlock.
    Landlock,
    /// A network namespace without interfaces.
    NetworkNamespace,
    /// No program that is started gains privileges.
    NoNewPrivs,
    /// Neither core files nor debuggers of the same user.
    NotDumpable,
    /// System calls outside the list answer EPERM.
    Seccomp,
    /// An account of its own instead of root.
    User,
}

impl Layer {
    /// Every layer.
    pub const ALL: &'static [Self] = &[
        Self::Capabilities,
        Self::Landlock,
        Self::NetworkNamespace,
        Self::NoNewPrivs,
        Self::NotDumpable,
        Self::Seccomp,
        Self::User,
    ];

    /// As settings and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::NetworkNamespace => "network-namespace",
            Self::NoNewPrivs => "no-new-privs",
            Self::NotDumpable => "not-dumpable",
            Self::Seccomp => "seccomp",
            Self::User => "user",
        }
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which layers a program must not run without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Required {
    /// Whatever this kernel offers to this user must take; what it does not offer is reported.
    Available,
    /// These, whether or not the system has them; beyond them as in `Available`.
    Named(Vec<Layer>),
}

impl Required {
    /// Reads `sandbox.required`: `auto`, `none`, or names separated by commas. The setting's table has checked the words.
    #[must_use]
    pub fn of_setting(text: &str) -> Self {
        if text == "auto" {
            return Self::Available;
        }
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        Self::Named(Layer::ALL.iter().copied().filter(|layer| words.contains(&layer.name())).collect())
    }

    /// Whether the program must not run without `layer`.
    #[must_use]
    pub fn names(&self, layer: Layer) -> bool {
        matches!(self, Self::Named(layers) if layers.contains(&layer))
    }
}

/// Whether a layer is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// This host or this user cannot have it.
    Missing,
    /// It does not apply to this program or this user.
    NotApplicable,
    /// It is up and was read back.
    On,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Which.
    pub layer: Layer,
    /// Whether it is up.
    pub state: State,
    /// What exactly, or why not.
    pub detail: String,
    /// The command that would grant it; empty when nothing is missing.
    pub remedy: String,
}

/// One call that was tried inside the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What was tried.
    pub call: String,
    /// Whether the jail is meant to let it through.
    pub wanted: bool,
    /// Whether it came through.
    pub allowed: bool,
    /// What the kernel answered.
    pub answer: String,
}

impl Probe {
    /// Whether it came out as it should.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.wanted == self.allowed
    }
}

/// How a note begins that tells of a probe which came out wrong; `health` makes a finding of such a note.
pub const WRONG: &str = "jail is not what it should be: it";

/// What holds a program back, as it was read back and tried at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One entry a layer.
    pub layers: Vec<LayerReport>,
    /// What was tried afterwards.
    pub probes: Vec<Probe>,
}

impl Report {
    /// One line each for `health`: what is up, then what is missing and what would grant it, then probes that came out wrong.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let on: Vec<&str> =
            self.layers.iter().filter(|entry| entry.state == State::On).map(|entry| entry.layer.name()).collect();
        let held = self.probes.iter().filter(|probe| probe.holds()).count();
        let first = if on.is_empty() {
            "jail: not built here".to_owned()
        } else {
            format!("jail: {}; {held} of {} probes as wanted", on.join(", "), self.probes.len())
        };
        let lacking = self.layers.iter().filter(|entry| !entry.remedy.is_empty());
        let lacking = lacking.map(|entry| format!("jail, {}: {}; {}", entry.layer, entry.detail, entry.remedy));
        let wrong = self.probes.iter().filter(|probe| !probe.holds());
        let wrong = wrong.map(|probe| {
            let what = if probe.wanted { "hinders" } else { "lets through" };
            format!("{WRONG} {what} {} ({}); see docs/threats.md", probe.call, probe.answer)
        });
        std::iter::once(first).chain(lacking).chain(wrong).collect()
    }

    /// Whether `layer` is up.
    #[must_use]
    pub fn is_on(&self, layer: Layer) -> bool {
        self.layers.iter().any(|entry| entry.layer == layer && entry.state == State::On)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_the_layers_that_must_be_there() {
        assert_eq!(Required::of_setting("auto"), Required::Available);
        assert_eq!(Required::of_setting("none"), Required::Named(Vec::new()));
        let named = Required::of_setting("seccomp, user");
        assert!(named.names(Layer::Seccomp) && named.names(Layer::User) && !named.names(Layer::Landlock));
    }

    #[test]
    fn a_missing_layer_and_a_wrong_probe_are_told_and_one_that_does_not_apply_is_not() {
        let entry = |layer, state, remedy: &str| LayerReport {
            layer,
            state,
            detail: "why".to_owned(),
            remedy: remedy.to_owned(),
        };
        let report = Report {
            layers: vec![
                entry(Layer::Seccomp, State::On, ""),
                entry(Layer::Landlock, State::NotApplicable, ""),
                entry(Layer::NetworkNamespace, State::Missing, "start as root"),
            ],
            probes: vec![Probe { call: "exec".to_owned(), wanted: false, allowed: true, answer: "done".to_owned() }],
        };
        let expected = [
            "jail: seccomp; 0 of 1 probes as wanted",
            "jail, network-namespace: why; start as root",
            "jail is not what it should be: it lets through exec (done); see docs/threats.md",
        ];
        assert_eq!(report.notes(), expected);
        let json = serde_json::to_string(&report).expect("plain data");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("what was written"), report);
    }
}
