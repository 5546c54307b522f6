//! No jail is built for this system, and the report says so.

use daemoneye_lib::jail::{JailError, Layer, LayerReport, Line, Probe, State};

use super::Grant;

pub(super) const fn worker_calls() -> Vec<&'static [Line]> {
    Vec::new()
}

pub(super) const fn parent_calls() -> Vec<&'static [Line]> {
    Vec::new()
}

pub(super) const fn probes() -> Vec<Probe> {
    Vec::new()
}

pub(super) fn restrict_files(_grants: &[Grant]) -> Result<LayerReport, JailError> {
    let detail = "not built for this system".to_owned();
    Ok(LayerReport { layer: Layer::Landlock, state: State::Missing, detail, remedy: String::new() })
}
