//! Masks columns of exported tables while their files pass, before anything is stored. Equal values of one
//! clone get equal masks, so that joins hold. Masked values cannot be traced back, nor matched between
//! clones, because each clone has its own key.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::Failure;
use tokio::io::BufReader;

use crate::csv::{self, Field};
use crate::transfer::{Bytes, Sink};
use crate::verbs::Key;

/// Domain of masked mail addresses. RFC 2606 section 2 reserves it, so that no mail is delivered there.
const MASKED_DOMAIN: &str = "masked.invalid";
/// Smallest masked number. It has fifteen digits, which every JSON reader keeps exactly.
const MIN_NUMBER: u64 = 100_000_000_000_000;

/// Masks one column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskRule {
    /// Name of the table.
    #[schemars(length(min = 1, max = 200))]
    pub table: String,
    /// Name of the column.
    #[schemars(length(min = 1, max = 200))]
    pub column: String,
    /// How the column is masked.
    pub mask: Mask,
    /// The value of every row, with `fixed` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub value: Option<String>,
}

/// How a value is masked. NULL stays NULL, except with `fixed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// NULL.
    Nullify,
    /// The rule's `value`.
    Fixed,
    /// A hash of the same form: a number of fifteen digits for a number, a UUID for a UUID, 32 bytes for
    /// bytes, otherwise a text of 32 hexadecimal digits.
    Hash,
    /// A mail address to which no mail can be delivered. Case is ignored.
    Email,
}

impl MaskRule {
    /// The invalid field of the rule and the reason, without regard to the tables.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        match (self.mask, &self.value) {
            (Mask::Fixed, None) => Some(("value", "is required with `fixed`")),
            (Mask::Nullify | Mask::Hash | Mask::Email, Some(_)) => {
                Some(("value", "is allowed with `fixed` only"))
            }
            _ => None,
        }
    }

    fn apply(&self, key: &hmac::Key, field: Field) -> Field {
        match (self.mask, field) {
            (Mask::Nullify, _) => Field::Null,
            (Mask::Fixed, _) => Field::Quoted(self.value.clone().unwrap_or_default()),
            (_, Field::Null) => Field::Null,
            (Mask::Hash, Field::Bare(text)) => Field::Bare(hash(key, &text)),
            (Mask::Hash, Field::Quoted(text)) => Field::Quoted(hash(key, &text)),
            (Mask::Email, Field::Bare(text) | Field::Quoted(text)) => {
                let tag = hmac::sign(key, text.trim().to_lowercase().as_bytes());
                let (name, _) = tag.as_ref().split_at(10);
                Field::Quoted(format!("{}@{MASKED_DOMAIN}", hex::encode(name)))
            }
        }
    }
}

/// A hash in the form of the value, so that it fits the column's type.
fn hash(key: &hmac::Key, text: &str) -> String {
    let tag = hmac::sign(key, text.as_bytes());
    let (mut low, mut half) = ([0; 8], [0; 16]);
    low.copy_from_slice(&tag.as_ref()[..8]);
    half.copy_from_slice(&tag.as_ref()[..16]);
    if text.starts_with("\\x") {
        format!("\\x{}", hex::encode(tag.as_ref()))
    } else if text.parse::<f64>().is_ok() {
        (MIN_NUMBER + u64::from_be_bytes(low) % (9 * MIN_NUMBER)).to_string()
    } else if uuid::Uuid::try_parse(text).is_ok() {
        uuid::Builder::from_custom_bytes(half).into_uuid().to_string()
    } else {
        hex::encode(half)
    }
}

/// The rules of one clone, and which of them have found their columns.
pub struct Masks {
    rules: Vec<MaskRule>,
    key: hmac::Key,
    met: BTreeSet<usize>,
}

impl Masks {
    /// Creates masks from rules and the clone's own key.
    pub fn new(rules: Vec<MaskRule>, key: &Key) -> Self {
        Self { rules, key: hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()), met: BTreeSet::new() }
    }

    /// A sink that masks CSV tables and passes them on to `sink`.
    pub fn over<'a>(&'a mut self, sink: &'a mut dyn Sink) -> Masked<'a> {
        Masked { masks: self, sink }
    }

    /// An error for the first rule whose table was not exported.
    pub fn all_met(&self) -> Result<(), Failure> {
        match self.rules.iter().enumerate().find(|(index, _)| !self.met.contains(index)) {
            None => Ok(()),
            Some((index, rule)) => Err(bad(index, format!("there is no table `{}`", rule.table))),
        }
    }
}

/// A sink that masks what it passes on.
pub struct Masked<'a> {
    masks: &'a mut Masks,
    sink: &'a mut dyn Sink,
}

#[async_trait]
impl Sink for Masked<'_> {
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let Self { masks, sink } = self;
        // Files without rows, such as the positions of sequences, have other paths.
        let table = csv::table_of(path).ok();
        let is_of_table = |(_, rule): &(usize, &MaskRule)| Some(&rule.table) == table.as_ref();
        let rules: Vec<(usize, &MaskRule)> = masks.rules.iter().enumerate().filter(is_of_table).collect();
        if rules.is_empty() {
            return sink.file(path, size, bytes).await;
        }
        let mut from = BufReader::new(bytes);
        let header = csv::header(&mut from).await?;
        let mut columns = Vec::new();
        for (index, rule) in rules {
            let column = header.iter().position(|name| *name == rule.column).ok_or_else(|| {
                let known = header.join(", ");
                let MaskRule { table, column, .. } = rule;
                bad(index, format!("table `{table}` has no column `{column}`; it has {known}"))
            })?;
            masks.met.insert(index);
            columns.push((column, rule));
        }
        // Buffer the file, a few MiB, because its length must be known before it is passed on.
        let mut masked = csv::line(header.iter().map(|name| Some(name.as_str())));
        while let Some(mut row) = csv::read(&mut from).await? {
            for (column, rule) in &columns {
                if let Some(field) = row.get_mut(*column) {
                    *field = rule.apply(&masks.key, std::mem::replace(field, Field::Null));
                }
            }
            csv::append(&mut masked, &row);
        }
        sink.file(path, masked.len() as u64, &mut &*masked).await
    }
}

fn bad(index: usize, why: String) -> Failure {
    Failure::invalid("bad_mask", format!("mask {}: {why}", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that collects the text it receives.
    #[derive(Default)]
    struct Kept(String);

    #[async_trait]
    impl Sink for Kept {
        async fn file(&mut self, _: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
            let read = tokio::io::AsyncReadExt::read_to_string(bytes, &mut self.0).await.unwrap();
            assert_eq!(read as u64, size, "the size is as announced");
            Ok(())
        }
    }

    fn rule(column: &str, mask: Mask) -> MaskRule {
        let value = (mask == Mask::Fixed).then(|| "x\"y".to_owned());
        MaskRule { table: "people".to_owned(), column: column.to_owned(), mask, value }
    }

    async fn pass(masks: &mut Masks, text: &str) -> Result<Vec<Vec<Field>>, Failure> {
        let mut kept = Kept::default();
        masks.over(&mut kept).file("people.000001.csv", text.len() as u64, &mut text.as_bytes()).await?;
        let mut from = BufReader::new(kept.0.as_bytes());
        let mut rows = Vec::new();
        while let Some(row) = csv::read(&mut from).await? {
            rows.push(row);
        }
        Ok(rows)
    }

    const PEOPLE: &str = "\"id\",\"mail\",\"phone\",\"note\",\"key\"\n\
        7,\"Ada@x.example\",\"+49 1\",\"a,\"\"b\"\"\n\",\\x00ff\n\
        8,\"ada@X.example\",\"+49 1\",,\\x00ff\n\
        7,,,\"\",\n";

    #[tokio::test]
    async fn masked_values_are_replaced_and_joins_hold() {
        let all = || {
            ["id", "mail", "phone", "note", "key"]
                .into_iter()
                .zip([Mask::Hash, Mask::Email, Mask::Hash, Mask::Fixed, Mask::Hash])
                .map(|(column, mask)| rule(column, mask))
                .collect::<Vec<_>>()
        };
        let mut masks = Masks::new(all(), &Key::default());
        assert!(masks.all_met().unwrap_err().message.contains("mask 1: there is no table `people`"));
        let rows = pass(&mut masks, PEOPLE).await.unwrap();
        masks.all_met().unwrap();
        let [_, first, second, third] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            (&first[0], &first[1], &first[2]),
            (&third[0], &second[1], &second[2]),
            "equal values stay equal"
        );
        assert_ne!(first[0], second[0]);
        let texts: Vec<String> = first.iter().cloned().map(|field| field.text().unwrap()).collect();
        let [id, mail, phone, note, key] = texts.as_slice() else { panic!("{texts:?}") };
        assert!(id.len() == 15 && id.bytes().all(|b| b.is_ascii_digit()) && *id != "7", "{id}");
        assert!(mail.ends_with("@masked.invalid") && !mail.contains("ada"), "{mail}");
        assert!(phone.len() == 32 && key.len() == 66 && key.starts_with("\\x"), "{phone} {key}");
        assert_eq!(note, "x\"y");
        assert_eq!(third[1..3], [Field::Null, Field::Null]);
        let other = pass(&mut Masks::new(all(), &Key::new([1; 32])), PEOPLE).await.unwrap();
        assert_ne!(other[1][2], first[2], "another clone's key gives other values");
    }

    #[tokio::test]
    async fn hashes_keep_the_form_of_the_value() {
        let mut masks =
            Masks::new(vec![rule("id", Mask::Hash), rule("mail", Mask::Nullify)], &Key::default());
        let text = "\"id\",\"mail\"\n\"0198c6a2-0000-7000-8000-000000000001\",\"a\"\n-1.5,\n";
        let rows = pass(&mut masks, text).await.unwrap();
        let id = rows[1][0].clone().text().unwrap();
        assert!(uuid::Uuid::try_parse(&id).is_ok() && !id.starts_with("0198c6a2"), "{id}");
        assert!(matches!(&rows[2][0], Field::Bare(number) if number.parse::<u64>().is_ok()));
        assert_eq!(rows[1][1], Field::Null);
    }

    #[tokio::test]
    async fn files_that_are_no_tables_pass_unchanged() {
        let (mut kept, text) = (Kept::default(), "\"id\"\n7\n");
        let mut masks = Masks::new(vec![rule("id", Mask::Hash)], &Key::default());
        let mut masked = masks.over(&mut kept);
        masked.file("sequences.csv", text.len() as u64, &mut text.as_bytes()).await.unwrap();
        assert_eq!(kept.0, text);
    }

    #[tokio::test]
    async fn errors_name_missing_columns() {
        let mut masks =
            Masks::new(vec![rule("mail", Mask::Email), rule("iban", Mask::Hash)], &Key::default());
        let refused = pass(&mut masks, PEOPLE).await.unwrap_err();
        assert_eq!(refused.code, "bad_mask");
        let said = "mask 2: table `people` has no column `iban`; it has id, mail, phone, note, key";
        assert_eq!(refused.message, said);
        assert!(rule("a", Mask::Fixed).fault().is_none());
        assert_eq!(MaskRule { value: None, ..rule("a", Mask::Fixed) }.fault().unwrap().0, "value");
        assert!(MaskRule { value: Some(String::new()), ..rule("a", Mask::Hash) }.fault().is_some());
    }
}
