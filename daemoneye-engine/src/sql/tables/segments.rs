//! The only files that a query can open: what lies under the store's directory, under a scheme of its own.

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::object_store::local::LocalFileSystem;
use std::path::Path;
use std::sync::Arc;

/// The one URL that resolves.
pub(crate) const SEGMENTS_URL: &str = "daemoneye://store";

/// A registry that knows the store's directory and no other URL; `file://`, which DataFusion brings along, is taken out.
pub(crate) fn segment_files(dir: &Path) -> Result<Arc<dyn ObjectStoreRegistry>> {
    let files =
        LocalFileSystem::new_with_prefix(dir).map_err(|error| DataFusionError::ObjectStore(Box::new(error)))?;
    let registry = DefaultObjectStoreRegistry::new();
    registry.deregister_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    registry.register_store(ObjectStoreUrl::parse(SEGMENTS_URL)?.as_ref(), Arc::new(files));
    Ok(Arc::new(registry))
}
