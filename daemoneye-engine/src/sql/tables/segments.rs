//! The only files that a query can open: what lies under the store's directory, under a scheme of its own, to be read.
//!
//! A query thread reads the pages that it is about to decode by itself. They mostly are in memory, where handing the read to
//! another thread and waking up again takes longer than the read; and there are no more threads for reading than for queries.

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path as Location;
use datafusion::object_store::{
    self, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
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
    registry.register_store(ObjectStoreUrl::parse(SEGMENTS_URL)?.as_ref(), Arc::new(Segments { files }));
    Ok(Arc::new(registry))
}

#[derive(Debug)]
struct Segments {
    files: LocalFileSystem,
}

impl fmt::Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("segments")
    }
}

impl Segments {
    /// `None` when anything is not as it should be: then [`LocalFileSystem`] finds the words for it.
    fn read(&self, location: &Location, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
        let mut file = File::open(self.files.path_to_filesystem(location).ok()?).ok()?;
        let read = |range: &Range<u64>| {
            let length = range.end.checked_sub(range.start)?;
            file.seek(SeekFrom::Start(range.start)).ok()?;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(usize::try_from(length).ok()?).ok()?;
            let read = (&mut file).take(length).read_to_end(&mut bytes).ok()?;
            (u64::try_from(read).ok()? == length).then(|| Bytes::from(bytes))
        };
        ranges.iter().map(read).collect()
    }
}

/// Nothing here writes.
fn refused(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: "segments".to_owned() }
}

#[async_trait]
impl ObjectStore for Segments {
    async fn get_opts(&self, location: &Location, options: GetOptions) -> object_store::Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Location, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        match self.read(location, ranges) {
            Some(read) => Ok(read),
            None => self.files.get_ranges(location, ranges).await,
        }
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> object_store::Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Location, _: PutPayload, _: PutOptions) -> object_store::Result<PutResult> {
        Err(refused("put"))
    }

    async fn put_multipart_opts(
        &self,
        _: &Location,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(refused("put"))
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, object_store::Result<Location>>,
    ) -> BoxStream<'static, object_store::Result<Location>> {
        stream::once(async { Err(refused("delete")) }).boxed()
    }

    async fn copy_opts(&self, _: &Location, _: &Location, _: CopyOptions) -> object_store::Result<()> {
        Err(refused("copy"))
    }
}
