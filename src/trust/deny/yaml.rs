//! The YAML form of a deny list.
//!
//! Read by hand instead of by derived code, for two reasons: texts are taken as they are written (a serial of nothing
//! but digits is no number, `1e5` no fraction), and reading goes on behind an entry that is wrong.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::draft::{Draft, Issuers, KEYS, Names};
use super::fault::{DenyFault, Faults, Place};
use super::names::DeniedName;
use super::{DenyEntry, DenySelector};
use crate::UnixTime;
use crate::certificate::SubjectAltName;

/// Hands over each entry that is right; `take` may refuse it.
pub(super) fn read(
    text: &str,
    faults: &mut Faults,
    take: &mut dyn FnMut(Place, DenyEntry) -> Result<(), DenyFault>,
) {
    let reader = File { faults: &mut *faults, take };
    if let Err(error) = reader.deserialize(serde_yaml::Deserializer::from_str(text)) {
        faults.add(Place::File, DenyFault::Yaml(error.to_string()));
    }
}

struct File<'a> {
    faults: &'a mut Faults,
    take: &'a mut dyn FnMut(Place, DenyEntry) -> Result<(), DenyFault>,
}

impl<'de> DeserializeSeed<'de> for File<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with the key `deny`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key != "deny" {
                self.faults.add(Place::File, DenyFault::UnknownKey { key, expected: "deny" });
                map.next_value::<IgnoredAny>()?;
            } else if found {
                self.faults.add(Place::File, DenyFault::KeyTwice(key));
                map.next_value::<IgnoredAny>()?;
            } else {
                found = true;
                map.next_value_seed(Entries { faults: &mut *self.faults, take: &mut *self.take })?;
            }
        }
        if !found {
            self.faults.add(Place::File, DenyFault::NoList);
        }
        Ok(())
    }
}

struct Entries<'a> {
    faults: &'a mut Faults,
    take: &'a mut dyn FnMut(Place, DenyEntry) -> Result<(), DenyFault>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Asked for a sequence, serde_yaml would take nothing for an empty one.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries (`[]` denies nobody)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (mut number, mut issuers) = (0, Issuers::default());
        while let Some(written) = seq.next_element::<Written>()? {
            number += 1;
            let place = Place::Entry(number);
            let entry = written.fault.map_or_else(|| written.draft.entry(&mut issuers), Err);
            if let Err(fault) = entry.and_then(|entry| (self.take)(place, entry)) {
                self.faults.add(place, fault);
            }
        }
        Ok(())
    }
}

/// An entry, and what is wrong with its keys.
#[derive(Default)]
struct Written {
    draft: Draft<'static>,
    fault: Option<DenyFault>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: a mapping such as `{ fingerprint: …, reason: stolen }`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        let mut written = Written::default();
        while let Some(key) = map.next_key::<String>()? {
            let draft = &mut written.draft;
            let known = match key.as_str() {
                "serial" => put(&mut draft.serial, text(&mut map)?),
                "issuer" => put(&mut draft.issuer, text(&mut map)?),
                "fingerprint" => put(&mut draft.fingerprint, text(&mut map)?),
                "key_fingerprint" => put(&mut draft.key_fingerprint, text(&mut map)?),
                "subject" => put(&mut draft.subject, map.next_value::<NamesText>()?.0),
                "san" => put(&mut draft.san, map.next_value::<NamesText>()?.0),
                "trust" => put(&mut draft.trust, text(&mut map)?),
                "until" => put(&mut draft.until, text(&mut map)?),
                "reason" => put(&mut draft.reason, text(&mut map)?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    written.fault.get_or_insert(DenyFault::UnknownKey { key, expected: KEYS });
                    continue;
                }
            };
            if known == Known::Before {
                written.fault.get_or_insert(DenyFault::KeyTwice(key));
            }
        }
        Ok(written)
    }
}

#[derive(PartialEq, Eq)]
enum Known {
    Now,
    Before,
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Cow<'static, str>, A::Error> {
    map.next_value::<String>().map(Cow::Owned)
}

fn put<T>(place: &mut Option<T>, value: T) -> Known {
    if place.replace(value).is_none() { Known::Now } else { Known::Before }
}

/// `{ CN: device-1, OU: sensors }`, or `CN=device-1,OU=sensors`, or a list of such texts.
struct NamesText(Names<'static>);

impl<'de> Deserialize<'de> for NamesText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = NamesText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "names: a mapping such as `{ CN: device-1 }`, or as they are shown: `CN=device-1`, `dns:a.example.com`",
        )
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamesText, A::Error> {
        let mut names = Names::default();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            names.pairs.push((key.into(), value.into()));
        }
        Ok(NamesText(names))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NamesText, A::Error> {
        let mut names = Names::default();
        while let Some(text) = seq.next_element::<String>()? {
            names.texts.push(text.into());
        }
        Ok(NamesText(names))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<NamesText, E> {
        Ok(NamesText(Names { texts: vec![text.to_owned().into()], ..Names::default() }))
    }

    /// Nothing stands there: told like an empty mapping.
    fn visit_unit<E: Error>(self) -> Result<NamesText, E> {
        Ok(NamesText(Names::default()))
    }
}

pub(super) fn write(entries: &[DenyEntry]) -> String {
    struct Whole<'a>(&'a [DenyEntry]);
    impl Serialize for Whole<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("deny", self.0)?;
            map.end()
        }
    }
    // Texts and mappings of texts: there is nothing that YAML could not hold.
    serde_yaml::to_string(&Whole(entries)).unwrap_or_default()
}

impl Serialize for DenyEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.selector {
            DenySelector::Serial { issuer, serial } => {
                map.serialize_entry("serial", &serial.to_string())?;
                map.serialize_entry("issuer", &issuer.to_string())?;
            }
            DenySelector::Fingerprint(fingerprint) => {
                map.serialize_entry("fingerprint", &fingerprint.to_string())?;
            }
            DenySelector::KeyFingerprint(fingerprint) => {
                map.serialize_entry("key_fingerprint", &fingerprint.to_string())?;
            }
            DenySelector::Names(names) => {
                let (subject, san): (Vec<&DeniedName>, Vec<_>) =
                    names.iter().partition(|name| matches!(name, DeniedName::Subject(_)));
                for (key, names) in [("subject", subject), ("san", san)] {
                    match names.as_slice() {
                        [] => {}
                        names if are_of_different_kinds(names) => map.serialize_entry(key, &Pairs(names))?,
                        names => map.serialize_entry(key, &Texts(names))?,
                    }
                }
            }
        }
        if let Some(domain) = &self.trust_domain {
            map.serialize_entry("trust", &**domain)?;
        }
        if let Some(until) = self.until {
            map.serialize_entry("until", &rfc3339(until))?;
        }
        if let Some(reason) = &self.reason {
            map.serialize_entry("reason", &**reason)?;
        }
        map.end()
    }
}

/// A mapping has each key once.
fn are_of_different_kinds(names: &[&DeniedName]) -> bool {
    names.iter().enumerate().all(|(at, name)| names[..at].iter().all(|other| !other.is_of_the_kind_of(name)))
}

struct Pairs<'a>(&'a [&'a DeniedName]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|name| match name {
            DeniedName::Subject(attribute) => (attribute.kind.key(), attribute.value.clone()),
            DeniedName::San(SubjectAltName::Dns(name)) => ("dns", name.clone()),
            DeniedName::San(SubjectAltName::Email(address)) => ("email", address.clone()),
            DeniedName::San(SubjectAltName::Uri(uri)) => ("uri", uri.clone()),
            DeniedName::San(SubjectAltName::Ip(address)) => ("ip", address.to_string()),
            // Is never among them.
            DeniedName::San(SubjectAltName::Other) => ("other", String::new()),
        }))
    }
}

struct Texts<'a>(&'a [&'a DeniedName]);

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// A moment beyond the calendar is as good as never, and reads back as the last one there is.
fn rfc3339(time: UnixTime) -> String {
    let moment = jiff::Timestamp::from_second(time);
    moment.unwrap_or(if time < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX }).to_string()
}
