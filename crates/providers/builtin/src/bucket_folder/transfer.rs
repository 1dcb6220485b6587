//! Exports and imports a bucket's objects. An archive has pages of up to a thousand objects: a table of keys
//! and media types, then one file per object, named by number because keys are not valid paths (`a` and `a/b`
//! may both exist). Objects are imported in the order of their keys, so that objects missing from the archive
//! are found and deleted on the way.

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use futures::SinkExt as _;
use futures::channel::mpsc;
use tenantry_model::{Failure, Timestamp};
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio_util::io::StreamReader;

use tenantry_provider::csv::{self, Field};
use tenantry_provider::objects::{MAX_PAGE, Meta, New, TenantObjects};
use tenantry_provider::transfer::{Arriving, Content, Sink, Source, Tally, bad_archive, broken};

/// Archive form of a bucket's files.
pub const FORM: &str = "objects";
/// Columns of a page's table.
const COLUMNS: [&str; 4] = ["file", "key", "content_type", "modified"];
/// Name under which the archive's content counts objects.
const SET: &str = "objects";
/// Bytes in transit at a time.
const CHUNK: usize = 64 << 10;

/// Writes all objects to the sink. An object that changes meanwhile is exported in the state it has when it
/// is reached.
pub async fn export(objects: &dyn TenantObjects, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let mut tally = Tally::default();
    tally.open(SET);
    let mut after: Option<String> = None;
    for page in 1_u32.. {
        let listing = objects.list("", MAX_PAGE, after.as_deref()).await?;
        let mut table = csv::line(COLUMNS.map(Some));
        for (index, meta) in listing.objects.iter().enumerate() {
            let (file, modified) = (file(page, index), meta.modified.to_string());
            table.extend(csv::line([
                Some(&*file),
                Some(&meta.key),
                meta.content_type.as_deref(),
                Some(&modified),
            ]));
        }
        sink.file(&format!("{page:06}.csv"), table.len() as u64, &mut &*table).await?;
        for (index, listed) in listing.objects.iter().enumerate() {
            let Some(mut content) = objects.get(&listed.key, None).await? else { continue };
            let Meta { key, etag, .. } = &content.meta;
            let media = listed.content_type.as_deref().unwrap_or_default();
            tally.add(SET, &[key.as_bytes(), media.as_bytes(), etag.as_bytes()]);
            sink.file(&file(page, index), content.length, &mut content.body).await?;
        }
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    Ok(tally.content())
}

fn file(page: u32, index: usize) -> String {
    format!("{page:06}/{:04}", index + 1)
}

/// An object listed in a page's table.
struct ListedObject {
    key: String,
    content_type: Option<String>,
    modified: Timestamp,
}

/// Stores the source's objects and deletes all others of the bucket.
pub async fn load(objects: &dyn TenantObjects, source: &mut dyn Source) -> Result<(), Failure> {
    let mut page: BTreeMap<String, ListedObject> = BTreeMap::new();
    // The last key that was stored.
    let mut last: Option<String> = None;
    while let Some(file) = source.next().await? {
        if file.path.ends_with(".csv") {
            page = read_table(file).await?;
            continue;
        }
        let missing = || bad_archive(format!("no table of the archive lists the file `{}`", file.path));
        let ListedObject { key, content_type, modified } = page.remove(&file.path).ok_or_else(missing)?;
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(bad_archive("the objects are not in the order of their keys"));
        }
        delete_between(objects, last.as_deref(), Some(&key)).await?;
        let new = New { key: &key, content_type: content_type.as_deref(), at: modified };
        store(objects, new, file).await?;
        last = Some(key);
    }
    delete_between(objects, last.as_deref(), None).await
}

async fn read_table(file: Arriving<'_>) -> Result<BTreeMap<String, ListedObject>, Failure> {
    let mut bytes = BufReader::new(file.bytes);
    if csv::header(&mut bytes).await? != COLUMNS {
        let message = format!("`{}` must have the columns {}", file.path, COLUMNS.join(", "));
        return Err(bad_archive(message));
    }
    let mut page = BTreeMap::new();
    while let Some(row) = csv::read(&mut bytes).await? {
        let bad = || bad_archive(format!("`{}` has a row that is not an object", file.path));
        let row: Vec<Option<String>> = row.into_iter().map(Field::text).collect();
        let [Some(file), Some(key), content_type, Some(modified)] =
            <[Option<String>; 4]>::try_from(row).map_err(|_| bad())?
        else {
            return Err(bad());
        };
        let modified = modified.parse().map_err(|_| bad())?;
        page.insert(file, ListedObject { key, content_type, modified });
        if page.len() > MAX_PAGE as usize {
            return Err(bad_archive(format!("a page has more than {MAX_PAGE} objects")));
        }
    }
    Ok(page)
}

/// Deletes the objects between two keys, both excluded.
async fn delete_between(
    objects: &dyn TenantObjects,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<(), Failure> {
    loop {
        let listing = objects.list("", MAX_PAGE, after).await?;
        let between = listing.objects.iter().take_while(|meta| before.is_none_or(|end| *meta.key < *end));
        let gone: Vec<&str> = between.map(|meta| meta.key.as_str()).collect();
        for key in &gone {
            objects.delete(key).await?;
        }
        if gone.len() < listing.objects.len() || listing.next.is_none() {
            return Ok(());
        }
    }
}

async fn store(objects: &dyn TenantObjects, new: New<'_>, file: Arriving<'_>) -> Result<(), Failure> {
    let (mut into, from) = mpsc::channel::<io::Result<Cursor<Vec<u8>>>>(1);
    let size = file.size;
    let send = async move {
        let mut left = size;
        while left > 0 {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut *file.bytes).take(left.min(CHUNK as u64)).read_to_end(&mut chunk).await;
            let cut_off = match read {
                Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => None,
                Err(error) => Some(error),
            };
            // Pass the error on, so that a truncated object is not stored as complete.
            if let Some(error) = cut_off {
                let failure = broken(&error);
                let _ = into.send(Err(error)).await;
                return Err(failure);
            }
            left -= chunk.len() as u64;
            if into.send(Ok(Cursor::new(chunk))).await.is_err() {
                // The receiver has stopped; `put` returns its error.
                break;
            }
        }
        Ok(())
    };
    let (passed, stored) = tokio::join!(send, objects.put(new, Box::pin(StreamReader::new(from))));
    passed?;
    stored.map(drop)
}
