//! Settings that are a word or a mapping.

/// Reads an enum of a word and a mapping. Serde's `untagged` would forget which key of the mapping is wrong.
macro_rules! word_or_mapping {
    ($name:ident, $word:ident, $mapping:ident, $expected:literal) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;

                impl<'de> serde::de::Visitor<'de> for Either {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        let text = serde::de::IntoDeserializer::into_deserializer(text);
                        serde::Deserialize::deserialize(text).map($name::$word)
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        let map = serde::de::value::MapAccessDeserializer::new(map);
                        serde::Deserialize::deserialize(map).map($name::$mapping)
                    }
                }

                deserializer.deserialize_any(Either)
            }
        }
    };
}

pub(super) use word_or_mapping;
