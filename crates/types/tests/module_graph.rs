//! The module graph of each crate: it has no cycle, and modules in `domain/` refer to no socket and no gRPC type.
//!
//! A node is a module, and an edge is a reference from one module's code to an item that another module defines.
//! References go through re-exports to the defining module. A `mod` declaration and a re-export are no edges.
//! Test code does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Item, UseTree, Visibility};

/// A module path inside a crate, without the crate's name. The root is empty.
type ModulePath = Vec<String>;

/// Declarations and references of a module.
#[derive(Default)]
struct Module {
    /// Names of the modules below this one.
    children: BTreeSet<String>,
    /// Names that this module defines itself.
    items: BTreeSet<String>,
    /// Imported names and the path that each stands for.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths imported by `*`.
    globs: Vec<Vec<String>>,
    /// Paths that the code of this module refers to.
    references: BTreeSet<Vec<String>>,
    file: PathBuf,
}

struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut this = Self { modules: BTreeMap::new() };
        let folder = root.parent().expect("a source file has a folder").to_owned();
        this.read_file(root, &folder, &[]);
        this
    }

    /// Reads the module in `file`. `folder` is where the files of its child modules are.
    fn read_file(&mut self, file: &Path, folder: &Path, path: &[String]) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.read_items(parsed.items, file, folder, path);
    }

    fn read_items(&mut self, items: Vec<Item>, file: &Path, folder: &Path, path: &[String]) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let mut reexports = Vec::new();
        for item in items {
            if is_test(attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    module.children.insert(name.clone());
                    let below = folder.join(&name);
                    let child_path = [path, std::slice::from_ref(&name)].concat();
                    if let Some((_, items)) = child.content {
                        self.read_items(items, file, &below, &child_path);
                    } else {
                        let flat = folder.join(format!("{name}.rs"));
                        let nested = below.join("mod.rs");
                        self.read_file(if flat.exists() { &flat } else { &nested }, &below, &child_path);
                    }
                }
                Item::Use(import) => {
                    let is_reexport = !matches!(import.vis, Visibility::Inherited);
                    for (name, target) in flatten(&import.tree, Vec::new()) {
                        match name {
                            None => {
                                module.globs.push(target.clone());
                                module.references.insert(target);
                            }
                            Some(name) => {
                                module.imports.insert(name.clone(), target.clone());
                                if is_reexport {
                                    reexports.push((name, target));
                                } else {
                                    module.references.insert(target);
                                }
                            }
                        }
                    }
                }
                item => {
                    module.items.extend(defined_name(&item));
                    collect_paths(item.to_token_stream(), &mut module.references);
                }
            }
        }
        // A re-export that the module's code also uses is a reference.
        for (name, target) in reexports {
            if module.references.iter().any(|reference| reference[0] == name) {
                module.references.insert(target);
            }
        }
        self.modules.insert(path.to_vec(), module);
    }

    /// The module that defines what `reference`, written in module `from`, stands for.
    fn resolve(&self, from: &[String], reference: &[String], depth: usize) -> Option<ModulePath> {
        if depth > 8 {
            return None;
        }
        let mut at = from.to_vec();
        let mut rest = reference;
        let mut is_anchored = false;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => {
                    at.pop();
                }
                _ => break,
            }
            is_anchored = true;
            rest = &rest[1..];
        }
        while let Some(name) = rest.first() {
            let module = self.modules.get(&at)?;
            if module.children.contains(name) {
                at.push(name.clone());
            } else if module.items.contains(name) {
                return (is_anchored || rest.len() < reference.len() || at != from).then_some(at);
            } else if let Some(target) = module.imports.get(name) {
                if target == reference && at == from {
                    return None;
                }
                let full = [target.as_slice(), &rest[1..]].concat();
                return self.resolve(&at, &full, depth + 1);
            } else {
                return module.globs.iter().find_map(|glob| {
                    let full = [glob.as_slice(), rest].concat();
                    self.resolve(&at, &full, depth + 1)
                });
            }
            is_anchored = true;
            rest = &rest[1..];
        }
        is_anchored.then_some(at)
    }

    fn edges(&self) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
        self.modules
            .iter()
            .map(|(path, module)| {
                let targets = module
                    .references
                    .iter()
                    // A single name is a local variable, or an import that already counts.
                    .filter(|reference| reference.len() > 1)
                    .filter_map(|reference| self.resolve(path, reference, 0))
                    .filter(|target| target != path)
                    .collect();
                (path, targets)
            })
            .collect()
    }

    /// One cycle of each group of modules that refer to each other in a circle.
    fn cycles(&self) -> Vec<Vec<String>> {
        let edges = self.edges();
        let mut seen = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in self.modules.keys() {
            if seen.contains(start) {
                continue;
            }
            if let Some(cycle) = shortest_cycle(&edges, start) {
                seen.extend(cycle.iter().cloned());
                cycles.push(cycle.iter().map(|path| format!("crate::{}", path.join("::"))).collect());
            }
        }
        cycles
    }
}

/// The shortest way from `start` back to itself, by breadth-first search.
fn shortest_cycle(
    edges: &BTreeMap<&ModulePath, BTreeSet<ModulePath>>,
    start: &ModulePath,
) -> Option<Vec<ModulePath>> {
    let mut previous: BTreeMap<ModulePath, ModulePath> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start.clone()]);
    while let Some(at) = queue.pop_front() {
        for target in edges.get(&at).into_iter().flatten() {
            if target == start {
                let mut cycle = vec![at.clone()];
                while cycle.last() != Some(start) {
                    let before = previous[cycle.last().expect("not empty")].clone();
                    cycle.push(before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !previous.contains_key(target) {
                previous.insert(target.clone(), at.clone());
                queue.push_back(target.clone());
            }
        }
    }
    None
}

fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.to_token_stream().to_string();
        text.contains("cfg") && text.contains("test")
    })
}

fn defined_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Macro(it) => it.ident.as_ref()?,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Each name that a `use` item imports, with its path. A glob has no name.
fn flatten(tree: &UseTree, mut path: Vec<String>) -> Vec<(Option<String>, Vec<String>)> {
    match tree {
        UseTree::Path(it) => {
            path.push(it.ident.to_string());
            flatten(&it.tree, path)
        }
        UseTree::Name(it) if it.ident == "self" => vec![(path.last().cloned(), path)],
        UseTree::Name(it) => {
            path.push(it.ident.to_string());
            vec![(Some(it.ident.to_string()), path)]
        }
        UseTree::Rename(it) => {
            path.push(it.ident.to_string());
            vec![(Some(it.rename.to_string()), path)]
        }
        UseTree::Glob(_) => vec![(None, path)],
        UseTree::Group(it) => it.items.iter().flat_map(|tree| flatten(tree, path.clone())).collect(),
    }
}

/// Collects every path `a::b::c`, and every single name, in a token stream. This covers macro arguments too.
fn collect_paths(tokens: TokenStream, into: &mut BTreeSet<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 && !path.is_empty() {
                    into.insert(std::mem::take(&mut path));
                }
                path.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            other => {
                if !path.is_empty() {
                    into.insert(std::mem::take(&mut path));
                }
                colons = 0;
                if let TokenTree::Group(group) = other {
                    collect_paths(group.stream(), into);
                }
            }
        }
    }
    if !path.is_empty() {
        into.insert(path);
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

/// The root source files of all our crates.
fn crate_roots() -> Vec<PathBuf> {
    let workspace = workspace();
    let mut folders = vec![workspace.join("cli")];
    for parent in ["crates", "services", "tools"] {
        let Ok(entries) = fs::read_dir(workspace.join(parent)) else { continue };
        folders.extend(entries.map(|entry| entry.expect("a folder can be read").path()));
    }
    folders
        .iter()
        .flat_map(|folder| ["src/lib.rs", "src/main.rs"].map(|root| folder.join(root)))
        .filter(|root| root.exists())
        .collect()
}

#[test]
fn cycle_of_modules_is_found() {
    let text = "
        mod a { use crate::b::B; pub struct A; }
        mod b { pub struct B; fn f() { crate::c::g(); } }
        mod c { pub use crate::a::A; pub fn g() -> crate::a::A { crate::a::A } }
        mod d { use crate::a::A; }
    ";
    let mut parsed = Crate { modules: BTreeMap::new() };
    let items = syn::parse_file(text).expect("valid code").items;
    parsed.read_items(items, Path::new("lib.rs"), Path::new(""), &[]);
    assert_eq!(parsed.cycles(), [["crate::a", "crate::b", "crate::c"]]);
}

#[test]
fn module_graph_of_each_crate_has_no_cycle() {
    let mut found = String::new();
    for root in crate_roots() {
        for cycle in Crate::read(&root).cycles() {
            let _ = writeln!(
                found,
                "{}: {}",
                root.strip_prefix(workspace()).expect("inside").display(),
                cycle.join(" -> ")
            );
        }
    }
    assert!(found.is_empty(), "modules refer to each other in a circle:\n{found}");
}

#[test]
fn domain_modules_refer_to_no_socket_and_no_grpc_type() {
    const FORBIDDEN: [&[&str]; 5] = [
        &["tonic"],
        &["tokio", "net"],
        &["std", "net", "TcpStream"],
        &["std", "net", "TcpListener"],
        &["std", "net", "UdpSocket"],
    ];
    let mut found = String::new();
    for root in crate_roots() {
        for (path, module) in Crate::read(&root).modules {
            if path.first().is_none_or(|top| top != "domain") {
                continue;
            }
            for reference in &module.references {
                if FORBIDDEN.iter().any(|forbidden| {
                    reference.iter().map(String::as_str).take(forbidden.len()).eq(forbidden.iter().copied())
                }) {
                    let _ = writeln!(found, "{}: {}", module.file.display(), reference.join("::"));
                }
            }
        }
    }
    assert!(found.is_empty(), "domain modules must not refer to sockets or gRPC:\n{found}");
}
