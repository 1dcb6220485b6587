//! Streams files from the export of one resource into the import of another, through a sink and a source in
//! memory, without storing them in between.

use async_trait::async_trait;
use tenantry_model::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, Take};
use tokio::sync::mpsc;

use crate::transfer::{Arriving, Bytes, Sink, Source, broken};

/// Bytes in transit at a time.
const BUFFER: usize = 256 << 10;

/// Creates a pipe: its sink and its source.
pub fn pipe() -> (PipeSink, PipeSource) {
    let (files, passing) = mpsc::channel(1);
    (PipeSink { files }, PipeSource { passing, current: None, ended: false })
}

/// The sink of a pipe.
pub struct PipeSink {
    files: mpsc::Sender<Option<PassingFile>>,
}

/// The source of a pipe.
pub struct PipeSource {
    passing: mpsc::Receiver<Option<PassingFile>>,
    current: Option<Take<DuplexStream>>,
    ended: bool,
}

struct PassingFile {
    path: String,
    size: u64,
    bytes: DuplexStream,
}

impl PipeSink {
    /// Marks the end of the files. If the sink is dropped without it, the source returns an error, so that a
    /// partial export is not imported.
    pub async fn end(self) -> Result<(), Failure> {
        self.pass(None).await
    }

    async fn pass(&self, file: Option<PassingFile>) -> Result<(), Failure> {
        self.files.send(file).await.map_err(|_| cut_off())
    }
}

#[async_trait]
impl Sink for PipeSink {
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let (mut into, from) = tokio::io::duplex(BUFFER);
        self.pass(Some(PassingFile { path: path.to_owned(), size, bytes: from })).await?;
        let copied = async {
            tokio::io::copy(bytes, &mut into).await?;
            into.shutdown().await
        };
        copied.await.map_err(|error| broken(&error))
    }
}

#[async_trait]
impl Source for PipeSource {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        if let Some(mut previous) = self.current.take() {
            let passed = tokio::io::copy(&mut previous, &mut tokio::io::sink()).await;
            passed.map_err(|error| broken(&error))?;
        }
        if self.ended {
            return Ok(None);
        }
        let Some(PassingFile { path, size, bytes }) = self.passing.recv().await.ok_or_else(cut_off)? else {
            self.ended = true;
            return Ok(None);
        };
        let bytes = self.current.insert(bytes.take(size));
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
    async fn files_pass_in_order_and_a_missing_end_is_an_error() {
        let big = vec![7; 3 * BUFFER];
        for whole in [true, false] {
            let (mut sink, mut source) = pipe();
            let put = async {
                for (path, bytes) in [("a", &b"one"[..]), ("big", &big), ("c", b"")] {
                    sink.file(path, bytes.len() as u64, &mut &*bytes).await?;
                }
                if whole {
                    return sink.end().await;
                }
                drop(sink);
                Ok(())
            };
            let take = async {
                let mut found = Vec::new();
                while let Some(file) = source.next().await? {
                    // Read only a part of the second file.
                    let (path, mut read) = (file.path, Vec::new());
                    file.bytes.take(5).read_to_end(&mut read).await.unwrap();
                    found.push((path, file.size, read));
                }
                assert!(source.next().await?.is_none(), "the end is permanent");
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
    async fn sending_without_a_receiver_is_an_error() {
        let (mut sink, source) = pipe();
        drop(source);
        assert_eq!(sink.file("a", 1, &mut &b"x"[..]).await.unwrap_err().code, "cut_off");
    }
}
