//! What must be true of the source tree and of what is packaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The top-level module a file belongs to.
fn module(file: &Path) -> String {
    let relative = file.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The rows of the table in ARCHITECTURE.md: module → the modules it may use.
fn allowed() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let cell_words =
        |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            (cell_words(cells[1]).into_iter().next().unwrap(), cell_words(cells[3]))
        })
        .collect()
}

#[test]
fn every_file_says_what_it_is_and_modules_use_only_what_the_map_allows() {
    let allowed = allowed();
    let mut faults = Vec::new();
    let mut modules = BTreeSet::new();
    for file in sources(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if !text.starts_with("//!") {
            faults.push(format!("{name}:1: the file does not begin with `//!`"));
        }
        let module = module(&file);
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        modules.insert(module.clone());
        let Some((_, may_use)) = allowed.iter().find(|(known, _)| *known == module) else { continue };
        if file.ends_with("tests.rs") {
            continue;
        }
        // What follows is the tests' own business.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for rest in line.split("crate::").skip(1) {
                let used: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !used.is_empty() && used != module && !may_use.contains(&used) {
                    faults.push(format!("{name}:{}: `{module}` may not use `{used}`", number + 1));
                }
            }
        }
    }
    let mapped: BTreeSet<String> = allowed.into_iter().map(|(module, _)| module).collect();
    for missing in modules.difference(&mapped) {
        faults.push(format!("ARCHITECTURE.md misses `{missing}`"));
    }
    for gone in mapped.difference(&modules) {
        faults.push(format!("ARCHITECTURE.md names `{gone}`, which is gone"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pure_core_names_neither_pingora_nor_the_clock_nor_files() {
    let mut faults = Vec::new();
    for file in sources(&root().join("src")) {
        if !matches!(
            module(&file).as_str(),
            "certificate" | "pattern" | "trust" | "fields" | "framing" | "route" | "limits" | "headers"
        ) {
            continue;
        }
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in ["pingora", "SystemTime", "std::fs", "tokio", "unsafe {"] {
            if code.contains(word) {
                faults.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// House rule: no code path yields a `ClientIdentity` without the trust domain's `verify`.
#[test]
fn only_trust_makes_an_identity() {
    for file in sources(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        if code.contains("ClientIdentity::new(") {
            assert_eq!(file, root().join("src/trust.rs"));
        }
        assert!(
            !code.contains("set_default_verify_paths") && !code.contains("set_default_paths"),
            "{}",
            file.display()
        );
    }
}

#[test]
fn the_systemd_unit_is_valid_and_locked_down() {
    let unit = root().join("packaging/portcullis.service");
    // The binary is not installed here: verify a copy of the unit that names the one that was built.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("portcullis.service");
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&copy, text.replace("/usr/bin/portcullis", env!("CARGO_BIN_EXE_portcullis"))).unwrap();
    let socket = directory.path().join("portcullis.socket");
    fs::copy(root().join("packaging/portcullis.socket"), &socket).unwrap();
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&copy, &socket]).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains("portcullis.")).collect();
    assert!(about_us.is_empty(), "{said}");
    let scored =
        Command::new("systemd-analyze").args(["security", "--offline=yes"]).arg(&unit).output().unwrap();
    let scored = String::from_utf8_lossy(&scored.stdout).into_owned();
    let line = scored.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    let score = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    assert!(score.is_some_and(|score| score <= 1.5), "{line}");
}

/// All words that the configuration may hold: keys, and values that are one of a few.
fn words(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(entries) => {
            if let Some(properties) = entries.get("properties").and_then(|properties| properties.as_object())
            {
                found.extend(properties.keys().cloned());
            }
            let values = entries.get("enum").and_then(|values| values.as_array());
            let value = entries.get("const");
            found.extend(
                values.into_iter().flatten().chain(value).filter_map(|v| v.as_str()).map(str::to_owned),
            );
            entries.values().for_each(|value| words(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        _ => {}
    }
}

#[test]
fn the_reference_names_every_word_of_the_configuration() {
    let reference = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut known = BTreeSet::new();
    words(&portcullis::config::schema(), &mut known);
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/');
    let named: BTreeSet<&str> = reference.split(|c| !is_word(c)).map(|word| word.trim_matches('.')).collect();
    let missing: Vec<_> = known.iter().filter(|word| !named.contains(word.as_str())).collect();
    assert!(known.len() > 100 && missing.is_empty(), "{missing:?}");
}

#[test]
fn the_reference_names_every_field_of_the_log() {
    let reference = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let code = |file: &str| {
        let text = fs::read_to_string(root().join("src/telemetry").join(file)).unwrap();
        text.split("#[cfg(test)]").next().unwrap().to_owned()
    };
    let code = code("record.rs") + &code("action.rs") + &code("turned_away.rs");
    let written = |call: &str| call.split_once("(\"")?.1.split_once('"').map(|(name, _)| name.to_owned());
    let fields: BTreeSet<String> = code.split("line.").skip(1).filter_map(written).collect();
    let missing: Vec<_> = fields.iter().filter(|field| !reference.contains(&format!("`{field}`"))).collect();
    assert!(fields.len() > 25 && missing.is_empty(), "{fields:?} {missing:?}");
}

/// Our stand-in for `pingora-openssl` is kept only as long as the real one does not build on AWS-LC.
#[test]
fn the_stand_in_for_pingora_openssl_is_looked_at_when_pingora_moves_on() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let version = |name: &str| {
        let (_, entry) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap();
        entry.split('"').next().unwrap().to_owned()
    };
    assert_eq!(
        version("pingora-core"),
        version("pingora-openssl"),
        "does the new pingora-openssl build with `openssl/aws-lc` and without `openssl/vendored`? Then drop \
         patches/pingora-openssl and [patch.crates-io]; else give ours the new version and whatever is new in its face"
    );
}
