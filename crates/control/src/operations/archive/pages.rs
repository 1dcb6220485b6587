//! Pages of an archive's manifest: one line for each file, in order, and a page after each [`PAGE`] bytes of lines. Writer and
//! reader keep at most one page in memory.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tenantry_model::Failure;
use tenantry_provider::transfer::bad_archive;

/// A page ends with the line that makes it this long, in bytes.
pub const PAGE: usize = 1 << 20;
/// Longest page that is read, in bytes.
pub const PAGE_MOST: u64 = 16 << 20;

/// Prefix and suffix of a page's path. Files of resources are in folders, so their paths differ.
const PATH: (&str, &str) = ("manifest.", ".ndjson");

/// Summary of the pages in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// Number of pages.
    pub count: u64,
    /// Number of files on them.
    pub files: u64,
    /// SHA-256 of their bytes, one page after the other, in hexadecimal.
    pub sha256: String,
}

/// A line of a page: a file in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedFile {
    /// Path in the archive.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
}

/// Whether a file of an archive is a page of its manifest.
pub fn is_page(path: &str) -> bool {
    let number = path.strip_prefix(PATH.0).and_then(|rest| rest.strip_suffix(PATH.1));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Listing of an archive's files while they are written or read: the lines since the last page, and sums of the pages.
#[derive(Default)]
pub struct Listing {
    open: Vec<u8>,
    files: u64,
    pages: u64,
    hash: Sha256,
}

impl Listing {
    /// Adds the next file.
    pub fn add(&mut self, file: &PackedFile) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.open, file)
            .map_err(|why| Failure::fatal("bad_manifest", format!("a file cannot be listed: {why}")))?;
        self.open.push(b'\n');
        self.files += 1;
        Ok(())
    }

    /// Length of the lines since the last page, in bytes.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The path of the next page.
    pub fn path(&self) -> String {
        format!("{}{:06}{}", PATH.0, self.pages + 1, PATH.1)
    }

    /// Ends the page and returns its text.
    pub fn turn(&mut self) -> Vec<u8> {
        let page = std::mem::take(&mut self.open);
        self.hash.update(&page);
        self.pages += 1;
        page
    }

    /// Ends the page and compares it with the text that was read. The error names the first file that differs.
    pub fn compare(&mut self, said: &[u8]) -> Result<(), Failure> {
        let passed = self.turn();
        if passed == said {
            return Ok(());
        }
        let lines = |text| <[u8]>::split(text, |byte| *byte == b'\n');
        let differs = lines(&*passed).zip(lines(said)).find(|(passed, said)| passed != said);
        let file = differs.and_then(|(passed, _)| serde_json::from_slice::<PackedFile>(passed).ok());
        let which = match file {
            Some(file) => format!("`{}`", file.path.escape_debug()),
            None => "its number of files".to_owned(),
        };
        Err(bad_archive(format!("{which} does not match the manifest")))
    }

    /// The summary for the manifest.
    pub fn end(self) -> Pages {
        Pages { count: self.pages, files: self.files, sha256: hex::encode(self.hash.finalize()) }
    }
}
