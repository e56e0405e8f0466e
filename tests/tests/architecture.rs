//! Dependencies between crates run one way: types, then traits, then backends; only the binary sees them all.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The crates that hold the traits backends implement, and the registry they register in.
const TRAITS: &[&str] = &["storage", "crypto", "provider", "plugin"];

/// The one file that names concrete backends.
const COMPOSITION_ROOT: &str = "crates/cli/src/builtins.rs";

/// One crate of ours naming another in its `Cargo.toml`; names without `tokenward-`.
#[derive(Clone, Debug)]
struct Edge {
    from: String,
    to: String,
    kind: DependencyKind,
}

/// What a crate may depend on, to build or to run.
enum May<'a> {
    Only(Vec<&'a str>),
    /// Everything but backends and the test kit: tools that drive the others.
    AllButBackends,
    Everything,
}

fn may(name: &str) -> Option<May<'static>> {
    let traits_and = |others: &[&'static str]| May::Only([TRAITS, others].concat());
    let allowed = match name {
        "types" | "api" | "hubspot-sim" | "journal" => May::Only(vec![]),
        "storage" | "crypto" | "provider" | "plugin" => May::Only(vec!["types", "plugin"]),
        _ if is_backend(name) => traits_and(&["types"]),
        "auth" => May::Only(vec!["types"]),
        // Backends' sections and the list of problems.
        "config" => May::Only(vec!["types", "plugin"]),
        "testkit" => traits_and(&["types"]),
        // A folder of files, which no other kind of journal stands in for.
        "broker" => traits_and(&["types", "journal"]),
        "server" => traits_and(&["types", "api", "auth", "broker"]),
        "client" => May::Only(vec!["api"]),
        "tests" | "xtask" | "bench" | "chaos" => May::AllButBackends,
        "cli" => May::Everything,
        _ => return None,
    };
    Some(allowed)
}

/// `storage-sea`, `crypto-local`, `provider-hubspot`, and whatever comes to stand beside them.
fn is_backend(name: &str) -> bool {
    ["storage-", "crypto-", "provider-"].iter().any(|family| name.starts_with(family))
}

/// Says of each edge that runs the wrong way what is wrong with it.
fn violations(edges: &[Edge]) -> Vec<String> {
    edges
        .iter()
        .filter_map(|edge| violation(edge).map(|why| format!("{} -> {}: {why}", edge.from, edge.to)))
        .collect()
}

fn violation(edge: &Edge) -> Option<String> {
    let (from, to) = (edge.from.as_str(), edge.to.as_str());
    let Some(allowed) = may(from) else {
        return Some(format!("no rule says what {from} may see; add it to this test"));
    };
    if edge.kind == DependencyKind::Development {
        return None;
    }
    if to == "testkit" {
        return Some("the test kit is a dev-dependency only".to_owned());
    }
    match allowed {
        May::Everything => None,
        May::AllButBackends => is_backend(to).then(|| "only cli sees backends".to_owned()),
        May::Only(list) if list.contains(&to) => None,
        May::Only(list) => Some(format!("{from} may see only [{}]", list.join(", "))),
    }
}

/// Names the files, other than the composition root, that speak of a backend crate.
fn naming_backends(sources: &[(PathBuf, String)], backends: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources.iter().filter(|(file, _)| !file.ends_with(COMPOSITION_ROOT)) {
        for backend in backends.iter().filter(|backend| text.contains(backend.as_str())) {
            found.push(format!("{} names {backend}", file.display()));
        }
    }
    found
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn workspace() -> PathBuf {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    package.parent().unwrap().to_owned()
}

fn short(name: &str) -> String {
    name.strip_prefix("tokenward-").unwrap_or(name).to_owned()
}

fn edges(metadata: &Metadata) -> Vec<Edge> {
    let mut edges = Vec::new();
    for package in &metadata.packages {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let (from, to) = (short(&package.name), short(&dependency.name));
            edges.push(Edge { from, to, kind: dependency.kind });
        }
    }
    edges
}

fn rust_files(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn dependencies_run_from_types_to_traits_to_backends_and_only_the_binary_sees_backends() {
    let edges = edges(&metadata());
    assert!(edges.iter().any(|edge| edge.from == "cli" && edge.to == "broker"), "found no edges: {edges:?}");
    assert_eq!(violations(&edges), Vec::<String>::new());
}

#[test]
fn every_crate_has_a_rule() {
    let metadata = metadata();
    let without: Vec<_> = metadata
        .packages
        .iter()
        .map(|package| short(&package.name))
        .filter(|name| may(name).is_none())
        .collect();
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn only_the_composition_root_names_concrete_backends() {
    let metadata = metadata();
    let backends: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| is_backend(&short(&package.name)))
        .map(|package| package.name.replace('-', "_"))
        .collect();
    assert!(backends.contains(&"tokenward_storage_sea".to_owned()), "{backends:?}");
    let mut sources = Vec::new();
    rust_files(&workspace().join("crates/cli/src"), &mut sources);
    assert!(!sources.is_empty());
    assert_eq!(naming_backends(&sources, &backends), Vec::<String>::new());
}

#[test]
fn a_planted_forbidden_dependency_is_found() {
    use DependencyKind::{Build, Development, Normal};
    let found = |from: &str, to: &str, kind| {
        !violations(&[Edge { from: from.to_owned(), to: to.to_owned(), kind }]).is_empty()
    };
    assert!(found("broker", "storage-sea", Normal), "a use case that knows a backend");
    assert!(found("broker", "storage-sea", Build), "or whose build script does");
    assert!(found("storage", "storage-sea", Normal), "a trait that knows its backend");
    assert!(found("types", "plugin", Normal), "an arrow that runs backwards");
    assert!(found("storage-sea", "crypto-local", Normal), "a backend that knows another");
    assert!(found("server", "provider-hubspot", Normal));
    assert!(found("client", "types", Normal), "what a service links to stays small");
    assert!(found("hubspot-sim", "provider", Normal), "the stand-in must not share our mistakes");
    assert!(found("broker", "testkit", Normal), "test code in the product");
    assert!(found("cli", "testkit", Normal));
    assert!(found("gossip", "types", Normal), "a crate that has no rule");
    assert!(!found("broker", "storage-sea", Development), "tests may use the real thing");
    assert!(!found("storage-mongo", "storage", Normal), "a backend yet to come");
}

#[test]
fn a_planted_backend_name_is_found() {
    let backends = ["tokenward_storage_sea".to_owned()];
    let source = |file: &str| (PathBuf::from(file), "use tokenward_storage_sea::Sea;".to_owned());
    assert_eq!(naming_backends(&[source("/x/crates/cli/src/serve.rs")], &backends).len(), 1);
    assert!(naming_backends(&[source("/x/crates/cli/src/builtins.rs")], &backends).is_empty());
}
