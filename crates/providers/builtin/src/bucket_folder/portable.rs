//! A bucket's objects on their way out and back. Pages of up to a thousand: a table of keys and media types, then the bytes,
//! in files with plain numbers for names, because keys make no good paths (`a` and `a/b` may both be there).
//! Back, they come in the order of their keys, so that what is not among them is found on the way, and goes.

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use futures::SinkExt as _;
use futures::channel::mpsc;
use tenantry_model::{Failure, Timestamp};
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio_util::io::StreamReader;

use tenantry_provider::csv::{self, Field};
use tenantry_provider::objects::{MAX_PAGE, Meta, New, TenantObjects};
use tenantry_provider::portable::{Arriving, Content, Sink, Source, Tally, bad_archive, broken};

/// The word for a bucket's files.
pub const FORM: &str = "objects";
/// What the table of a page tells of each object.
const COLUMNS: [&str; 4] = ["file", "key", "content_type", "modified"];
/// The name under which objects are counted.
const SET: &str = "objects";
/// Bytes that are on their way at a time.
const CHUNK: usize = 64 << 10;

/// Hands out all objects. One that is stored or deleted meanwhile is as it is when its turn comes.
pub async fn export(objects: &dyn TenantObjects, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let mut tally = Tally::default();
    tally.open(SET);
    let mut after: Option<String> = None;
    for page in 1_u32.. {
        let listing = objects.list("", MAX_PAGE, after.as_deref()).await?;
        let mut table = csv::line(COLUMNS.map(Some));
        for (place, meta) in listing.objects.iter().enumerate() {
            let (file, modified) = (file(page, place), meta.modified.to_string());
            table.extend(csv::line([
                Some(&*file),
                Some(&meta.key),
                meta.content_type.as_deref(),
                Some(&modified),
            ]));
        }
        sink.file(&format!("{page:06}.csv"), table.len() as u64, &mut &*table).await?;
        for (place, listed) in listing.objects.iter().enumerate() {
            let Some(mut content) = objects.get(&listed.key, None).await? else { continue };
            let Meta { key, etag, .. } = &content.meta;
            let media = listed.content_type.as_deref().unwrap_or_default();
            tally.add(SET, &[key.as_bytes(), media.as_bytes(), etag.as_bytes()]);
            sink.file(&file(page, place), content.length, &mut content.body).await?;
        }
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    Ok(tally.content())
}

fn file(page: u32, place: usize) -> String {
    format!("{page:06}/{:04}", place + 1)
}

/// An object that is announced.
struct Announced {
    key: String,
    content_type: Option<String>,
    modified: Timestamp,
}

/// Stores the source's objects, and removes what is not among them.
pub async fn load(objects: &dyn TenantObjects, source: &mut dyn Source) -> Result<(), Failure> {
    let mut page: BTreeMap<String, Announced> = BTreeMap::new();
    // The last key that was dealt with.
    let mut last: Option<String> = None;
    while let Some(file) = source.next().await? {
        if file.path.ends_with(".csv") {
            page = announced(file).await?;
            continue;
        }
        let missing = || bad_archive(format!("no table says which object `{}` is", file.path));
        let Announced { key, content_type, modified } = page.remove(&file.path).ok_or_else(missing)?;
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(bad_archive("the objects are not in the order of their keys"));
        }
        clear(objects, last.as_deref(), Some(&key)).await?;
        let new = New { key: &key, content_type: content_type.as_deref(), at: modified };
        store(objects, new, file).await?;
        last = Some(key);
    }
    clear(objects, last.as_deref(), None).await
}

async fn announced(file: Arriving<'_>) -> Result<BTreeMap<String, Announced>, Failure> {
    let mut bytes = BufReader::new(file.bytes);
    if csv::header(&mut bytes).await? != COLUMNS {
        let message = format!("`{}` must have the columns {}", file.path, COLUMNS.join(", "));
        return Err(bad_archive(message));
    }
    let mut page = BTreeMap::new();
    while let Some(row) = csv::read(&mut bytes).await? {
        let bad = || bad_archive(format!("`{}` has a row that is no object's", file.path));
        let row: Vec<Option<String>> = row.into_iter().map(Field::text).collect();
        let [Some(file), Some(key), content_type, Some(modified)] =
            <[Option<String>; 4]>::try_from(row).map_err(|_| bad())?
        else {
            return Err(bad());
        };
        let modified = modified.parse().map_err(|_| bad())?;
        page.insert(file, Announced { key, content_type, modified });
        if page.len() > MAX_PAGE as usize {
            return Err(bad_archive(format!("a page has more than {MAX_PAGE} objects")));
        }
    }
    Ok(page)
}

/// Removes the objects between two keys that are not between them any more.
async fn clear(
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
    let hand_on = async move {
        let mut left = size;
        while left > 0 {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut *file.bytes).take(left.min(CHUNK as u64)).read_to_end(&mut chunk).await;
            let cut_off = match read {
                Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => None,
                Err(error) => Some(error),
            };
            // An object that broke off must not be stored as if it ended there.
            if let Some(error) = cut_off {
                let failure = broken(&error);
                let _ = into.send(Err(error)).await;
                return Err(failure);
            }
            left -= chunk.len() as u64;
            if into.send(Ok(Cursor::new(chunk))).await.is_err() {
                // Whoever stores it has stopped, and says why.
                break;
            }
        }
        Ok(())
    };
    let (passed, stored) = tokio::join!(hand_on, objects.put(new, Box::pin(StreamReader::new(from))));
    passed?;
    stored.map(drop)
}
