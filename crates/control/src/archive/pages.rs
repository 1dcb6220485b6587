//! The pages of an archive's manifest: each file of the archive on a line, in their order, and a page after every so many
//! bytes of lines. So neither who writes an archive nor who reads it ever remembers more of its files than a page.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tenantry_model::Failure;
use tenantry_provider::portable::bad_archive;

/// A page ends with the line that makes it as long as this, in bytes.
pub const PAGE: usize = 1 << 20;
/// Most bytes of a page that is read.
pub const PAGE_MOST: u64 = 16 << 20;

/// How the path of a page begins and ends. No resource has such a one: theirs are in folders.
const PATH: (&str, &str) = ("manifest.", ".ndjson");

/// What the manifest says of its pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// How many they are.
    pub count: u64,
    /// The files that stand on them.
    pub files: u64,
    /// SHA-256 of their bytes, one page after the other, in hexadecimal.
    pub sha256: String,
}

/// A line of a page: a file in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedFile {
    /// Its path.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes in hexadecimal.
    pub sha256: String,
}

/// Whether a file of an archive is a page of its manifest.
pub fn is_page(path: &str) -> bool {
    let number = path.strip_prefix(PATH.0).and_then(|rest| rest.strip_suffix(PATH.1));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The files of an archive, as they pass: those since the last page, and what is known of all pages before.
#[derive(Default)]
pub struct Listing {
    open: Vec<u8>,
    files: u64,
    pages: u64,
    hash: Sha256,
}

impl Listing {
    /// The next file.
    pub fn add(&mut self, file: &PackedFile) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.open, file)
            .map_err(|why| Failure::fatal("bad_manifest", format!("a file cannot be listed: {why}")))?;
        self.open.push(b'\n');
        self.files += 1;
        Ok(())
    }

    /// Bytes of the lines since the last page.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Pages so far.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The path of the next page.
    pub fn path(&self) -> String {
        format!("{}{:06}{}", PATH.0, self.pages + 1, PATH.1)
    }

    /// Ends the page: what stands on it.
    pub fn turn(&mut self) -> Vec<u8> {
        let page = std::mem::take(&mut self.open);
        self.hash.update(&page);
        self.pages += 1;
        page
    }

    /// Ends the page, on which this was found. Names the first file that it says something else of.
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
        Err(bad_archive(format!("{which} is not as its manifest says")))
    }

    /// What the manifest is to say of them.
    pub fn end(self) -> Pages {
        Pages { count: self.pages, files: self.files, sha256: hex::encode(self.hash.finalize()) }
    }
}
