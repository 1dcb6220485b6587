//! What one resource hands out, straight into another that takes it: files pass from a sink to a source, and lie nowhere in
//! between.

use async_trait::async_trait;
use tenantry_model::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, Take};
use tokio::sync::mpsc;

use crate::portable::{Arriving, Bytes, Sink, Source, broken};

/// Bytes that are on their way at a time.
const ROOM: usize = 256 << 10;

/// Both ends.
pub fn pipe() -> (Inlet, Outlet) {
    let (files, passing) = mpsc::channel(1);
    (Inlet { files }, Outlet { passing, present: None, ended: false })
}

/// Where files go in.
pub struct Inlet {
    files: mpsc::Sender<Option<File>>,
}

/// Where they come out.
pub struct Outlet {
    passing: mpsc::Receiver<Option<File>>,
    present: Option<Take<DuplexStream>>,
    ended: bool,
}

struct File {
    path: String,
    size: u64,
    bytes: DuplexStream,
}

impl Inlet {
    /// Says that there are no more. Dropped without it, the other end fails: half of a content is none.
    pub async fn end(self) -> Result<(), Failure> {
        self.pass(None).await
    }

    async fn pass(&self, file: Option<File>) -> Result<(), Failure> {
        self.files.send(file).await.map_err(|_| cut_off())
    }
}

#[async_trait]
impl Sink for Inlet {
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let (mut into, from) = tokio::io::duplex(ROOM);
        self.pass(Some(File { path: path.to_owned(), size, bytes: from })).await?;
        let copied = async {
            tokio::io::copy(bytes, &mut into).await?;
            into.shutdown().await
        };
        copied.await.map_err(|error| broken(&error))
    }
}

#[async_trait]
impl Source for Outlet {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        if let Some(mut before) = self.present.take() {
            let passed = tokio::io::copy(&mut before, &mut tokio::io::sink()).await;
            passed.map_err(|error| broken(&error))?;
        }
        if self.ended {
            return Ok(None);
        }
        let Some(File { path, size, bytes }) = self.passing.recv().await.ok_or_else(cut_off)? else {
            self.ended = true;
            return Ok(None);
        };
        let bytes = self.present.insert(bytes.take(size));
        Ok(Some(Arriving { path, size, bytes }))
    }
}

fn cut_off() -> Failure {
    broken(&std::io::ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_passes_in_its_order_and_half_of_it_is_an_error() {
        let big = vec![7; 3 * ROOM];
        for whole in [true, false] {
            let (mut inlet, mut outlet) = pipe();
            let put = async {
                for (path, bytes) in [("a", &b"one"[..]), ("big", &big), ("c", b"")] {
                    inlet.file(path, bytes.len() as u64, &mut &*bytes).await?;
                }
                if whole {
                    return inlet.end().await;
                }
                drop(inlet);
                Ok(())
            };
            let take = async {
                let mut found = Vec::new();
                while let Some(file) = outlet.next().await? {
                    // Of the second one only a part is read.
                    let (path, mut read) = (file.path, Vec::new());
                    file.bytes.take(5).read_to_end(&mut read).await.unwrap();
                    found.push((path, file.size, read));
                }
                assert!(outlet.next().await?.is_none(), "an end stays one");
                Ok::<_, Failure>(found)
            };
            let (put, taken) = tokio::join!(put, take);
            put.unwrap();
            match taken {
                Ok(found) => {
                    assert!(whole);
                    let size = big.len() as u64;
                    let expected =
                        [("a", 3, b"one".to_vec()), ("big", size, vec![7; 5]), ("c", 0, Vec::new())];
                    assert_eq!(found, expected.map(|(path, size, read)| (path.to_owned(), size, read)));
                }
                Err(failure) => assert!(!whole && failure.code == "cut_off", "{failure}"),
            }
        }
    }

    #[tokio::test]
    async fn who_puts_in_learns_that_nobody_takes() {
        let (mut inlet, outlet) = pipe();
        drop(outlet);
        assert_eq!(inlet.file("a", 1, &mut &b"x"[..]).await.unwrap_err().code, "cut_off");
    }
}
