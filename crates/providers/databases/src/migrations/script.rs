//! From a file's text to the statements that run: its Up parts, split, without a `BEGIN … COMMIT` around all of
//! it, and with every statement checked.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::extensions::Extension;
use super::faults::Faults;
use super::folder::Source;
use super::lookup::{self, Marked};
use super::parts::{Up, up};
use super::public::{self, Members, PublicName, PublicSchema};
use super::rules::{self, Verdict};
use super::statements::{Piece, Split, split_all};
use super::tool::Tool;
use super::{Dialect, Policy, copy, public::PublicNames};
use crate::tables::quoted;

/// One statement of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Line of the file at which it begins.
    pub line: usize,
    /// Text without the semicolon.
    text: String,
    /// Where the text names `public` and means the tenant's schema, or that of an extension.
    public: Vec<PublicName>,
    /// The table that it creates for all tenants to read, as it writes the name; none if it is not marked so.
    lookup: Option<String>,
}

impl Statement {
    /// The text, for tables in this schema, in a database with these objects of extensions.
    pub fn sql(&self, schema: &str, members: &Members) -> Cow<'_, str> {
        if self.public.is_empty() {
            return Cow::Borrowed(&self.text);
        }
        let mut sql = self.text.clone();
        for place in self.public.iter().rev() {
            let member = place.name.as_ref().and_then(|name| members.get(name));
            sql.replace_range(place.range.clone(), &quoted(member.map_or(schema, String::as_str)));
        }
        Cow::Owned(sql)
    }

    /// The table that it creates for all tenants to read, as it writes the name.
    pub fn lookup_table(&self) -> Option<&str> {
        self.lookup.as_deref()
    }

    /// Whether the text may name an object of an extension as one in `public`.
    pub fn may_name_members(&self) -> bool {
        self.public.iter().any(|place| place.name.is_some())
    }

    /// Lets names of objects that statements before this one create in `public`, or it does itself, mean these and no object
    /// of an extension. `own`: the objects so far.
    pub fn find_own_names(&mut self, own: &mut BTreeSet<String>) {
        for place in &mut self.public {
            if place.is_created {
                own.extend(place.name.take());
            } else {
                place.name.take_if(|name| own.contains(name));
            }
        }
    }

    /// The text as the file has it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the text from this offset on by one that does not name `public`.
    pub fn replace_end(&mut self, from: usize, end: &str) {
        self.text.truncate(from);
        self.text.push_str(end);
        self.public.retain(|place| place.range.end <= from);
    }
}

/// What runs of a file.
#[derive(Debug)]
pub struct Script {
    pub statements: Vec<Statement>,
    pub extensions: Vec<Extension>,
    pub transaction: bool,
    pub tool: Tool,
}

impl Script {
    /// Of a file that cannot be read.
    fn none(tool: Tool) -> Self {
        Self { statements: Vec::new(), extensions: Vec::new(), transaction: true, tool }
    }
}

/// Reads a file's text; its faults are added to `faults`.
pub fn read(source: &Source, dialect: Dialect, policy: &Policy, faults: &mut Faults) -> Script {
    let Up { parts, tool: marks, transaction } = match up(&source.text) {
        Ok(up) => up,
        Err(found) => {
            found.into_iter().for_each(|(line, tool, why)| faults.at(&source.file, line, tool, why));
            return Script::none(source.tool);
        }
    };
    let tool = match (source.tool, marks) {
        (Tool::Plain, Some(tool)) => tool,
        (tool, None) => tool,
        (tool, Some(mark)) => {
            let why =
                format!("the file has marks of {}: keep the name and the marks of one tool", mark.name());
            let line = parts.first().map_or(1, |part| part.line.saturating_sub(1).max(1));
            faults.at(&source.file, line, tool, why);
            return Script::none(tool);
        }
    };
    let splits: Vec<Split<'_>> = parts.iter().map(|part| split_all(part.text, dialect)).collect();
    let is_dump = dialect == Dialect::Postgres
        && parts.iter().zip(&splits).any(|(part, split)| rules::is_dump(part.text, &split.statements));
    let tool = if is_dump && tool == Tool::Plain { Tool::PgDump } else { tool };
    let (file, extensions) = (&source.file, Vec::new());
    let mut reader = Reader { file, tool, dialect, policy, is_dump, extensions, faults };
    let mut pieces = Vec::new();
    for (part, split) in parts.iter().zip(splits) {
        let before = part.line - 1;
        split.faults.into_iter().for_each(|(line, why)| reader.fault(before + line, why));
        let mut of_part = split.statements;
        for piece in &mut of_part {
            piece.line += before;
            piece.mark = piece.mark.map(|line| line + before);
        }
        if transaction || dialect == Dialect::Sqlite {
            unwrap_transaction(&mut of_part);
        }
        pieces.append(&mut of_part);
    }
    reader.read(&pieces, transaction)
}

/// Removes a `BEGIN` and `COMMIT` around all statements.
fn unwrap_transaction(pieces: &mut Vec<Piece<'_>>) {
    let is_around = |first: &Piece<'_>, last: &Piece<'_>| {
        rules::is_begin(first) && rules::is_commit(last) && first.mark.or(last.mark).is_none()
    };
    if matches!(pieces.as_slice(), [first, .., last] if is_around(first, last)) {
        pieces.pop();
        pieces.remove(0);
    }
}

struct Reader<'a> {
    file: &'a str,
    tool: Tool,
    dialect: Dialect,
    policy: &'a Policy,
    is_dump: bool,
    /// The extensions that the file names.
    extensions: Vec<Extension>,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn fault(&mut self, line: usize, why: impl Into<String>) {
        self.faults.at(self.file, line, self.tool, why);
    }

    fn read(&mut self, pieces: &[Piece<'_>], marked: bool) -> Script {
        if self.tool == Tool::Flyway {
            self.placeholders(pieces);
        }
        // No SQLite statement needs to run outside of a transaction.
        let transaction = self.dialect == Dialect::Sqlite || self.transaction(pieces, marked);
        let statements = pieces.iter().filter_map(|piece| self.statement(piece)).collect();
        let extensions = std::mem::take(&mut self.extensions);
        Script { statements, extensions, transaction, tool: self.tool }
    }

    /// Whether the file runs in a transaction; reports statements that cannot.
    fn transaction(&mut self, pieces: &[Piece<'_>], marked: bool) -> bool {
        let outside: Vec<_> =
            pieces.iter().filter_map(|piece| Some((piece, rules::outside_transaction(piece)?))).collect();
        if !marked || outside.is_empty() {
            return marked;
        }
        // Flyway runs such files without a transaction and rejects a mixture.
        if self.tool == Tool::Flyway && outside.len() == pieces.len()
            || self.tool.sends_file_as_one_message() && pieces.len() == 1
        {
            return false;
        }
        for (piece, words) in outside {
            let how = self.tool.without_transaction();
            self.fault(piece.line, format!("{words} cannot run in a transaction: {how}"));
        }
        true
    }

    /// Reports texts that Flyway would replace.
    fn placeholders(&mut self, pieces: &[Piece<'_>]) {
        for piece in pieces {
            for (at, _) in piece.text.match_indices("${") {
                let name: String =
                    piece.text.get(at..).unwrap_or_default().chars().take_while(|c| *c != '}').collect();
                let why = format!("the placeholder `{name}}}` is not replaced here: write the value");
                self.fault(piece.line_at(at), why);
            }
        }
    }

    /// The statement as it runs; none if it has no effect here or is at fault.
    fn statement(&mut self, piece: &Piece<'_>) -> Option<Statement> {
        let marked = match piece.mark.map(|line| (line, lookup::table(piece, self.dialect))) {
            Some((line, Err(why))) => {
                self.fault(line, why);
                return None;
            }
            Some((_, Ok(marked))) => Some(marked),
            None => None,
        };
        match rules::verdict(piece, self.dialect, self.is_dump) {
            Verdict::Run => {}
            Verdict::Skip => return None,
            Verdict::FindsPublic if self.policy.public == PublicSchema::Rewrite => return None,
            Verdict::Installs(extension) => {
                if let Some(why) = self.policy.extensions.fault(&extension.name) {
                    self.fault(piece.line, why);
                }
                self.extensions.push(extension);
                return None;
            }
            Verdict::FindsPublic => {
                self.fault(piece.line, FINDS_PUBLIC);
                return None;
            }
            Verdict::Refuse(why) => {
                self.fault(piece.line, why);
                return None;
            }
        }
        let mut text = Cow::Borrowed(piece.text);
        if let Some(data) = piece.data {
            match copy::insert(piece.text, data) {
                Ok(None) => return None,
                Ok(Some(insert)) => text = Cow::Owned(insert),
                Err(why) => {
                    self.fault(piece.line, why);
                    return None;
                }
            }
        }
        let mut lookup = None;
        if let Some(Marked { name, sql }) = marked {
            (lookup, text) = (Some(name), sql);
        }
        let mut places = Vec::new();
        if self.dialect == Dialect::Postgres {
            let piece = Piece { text: &text, data: None, ..piece.clone() };
            let PublicNames { names: found, faults, skip } = public::find(&piece, self.policy.public);
            if skip {
                return None;
            }
            for (at, why) in faults {
                self.fault(piece.line_at(at), why);
            }
            places = found;
        }
        Some(Statement { line: piece.line, text: text.into_owned(), public: places, lookup })
    }
}

const FINDS_PUBLIC: &str = "sets the search path to public, but Tenantry sets it to the tenant's schema: remove the statement, or set `public_schema = \"rewrite\"`";
