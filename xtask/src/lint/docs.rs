//! The documentation: every page is in the book, every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{Context, Outcome};
use crate::shell;

/// Checks every Markdown file that git knows or would add.
pub(super) fn check(context: &Context) -> Result<Outcome> {
    let mut git = context.workspace.command("git");
    let list = shell::output(git.args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let files: BTreeSet<PathBuf> = list
        .lines()
        .map(PathBuf::from)
        .filter(|file| context.workspace.root().join(file).is_file())
        .collect();
    let mut pages = BTreeMap::new();
    for file in files.iter().filter(|file| is_markdown(file)) {
        let text = std::fs::read_to_string(context.workspace.root().join(file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        pages.insert(file.clone(), Page::parse(&text));
    }
    if pages.is_empty() {
        return Ok(Outcome::Nothing("no Markdown file".to_owned()));
    }
    let problems = problems(&pages, &files);
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} problems in Markdown files", problems.len());
    }
    println!(
        "{} Markdown files, {} links",
        pages.len(),
        pages.values().map(|page| page.links.len()).sum::<usize>()
    );
    Ok(Outcome::Passed)
}

fn is_markdown(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "md")
}

/// What of a Markdown file matters here.
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_HEADING_ATTRIBUTES;
        let mut page = Self { links: Vec::new(), anchors: BTreeSet::new() };
        let mut heading: Option<(Option<String>, String)> = None;
        for event in Parser::new_ext(text, options) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { id, .. }) => {
                    heading = Some((id.map(pulldown_cmark::CowStr::into_string), String::new()));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some((_, title)) = &mut heading {
                        title.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    if let Some((id, title)) = heading.take() {
                        page.add_anchor(&id.unwrap_or_else(|| slug(&title)));
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// A title that comes twice gets `-1`, `-2`, … as in mdBook and on GitHub.
    fn add_anchor(&mut self, anchor: &str) {
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let free =
            std::iter::once(anchor.to_owned()).chain(repeated).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }
}

/// The anchor that mdBook and GitHub make of a heading.
fn slug(title: &str) -> String {
    title
        .trim()
        .chars()
        .filter_map(|letter| match letter {
            letter if letter.is_alphanumeric() || letter == '_' || letter == '-' => Some(letter),
            letter if letter.is_whitespace() => Some('-'),
            _ => None,
        })
        .flat_map(char::to_lowercase)
        .collect()
}

fn problems(pages: &BTreeMap<PathBuf, Page>, files: &BTreeSet<PathBuf>) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, page) in pages {
        for link in page.links.iter().filter(|link| !leaves_the_repository(link)) {
            if let Some(problem) = problem(pages, files, file, link) {
                problems.push(format!("{}: {link}: {problem}", file.display()));
            }
        }
    }
    for (summary, contents) in pages.iter().filter(|(file, _)| file.ends_with("SUMMARY.md")) {
        let Some(book) = summary.parent() else { continue };
        let listed: BTreeSet<_> =
            contents.links.iter().filter_map(|link| resolve(summary, link.split('#').next()?)).collect();
        for page in pages.keys().filter(|page| page.starts_with(book) && *page != summary) {
            if !listed.contains(page) {
                problems.push(format!("{}: is not in {}", page.display(), summary.display()));
            }
        }
    }
    problems
}

fn leaves_the_repository(link: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme))
}

fn problem(
    pages: &BTreeMap<PathBuf, Page>,
    files: &BTreeSet<PathBuf>,
    file: &Path,
    link: &str,
) -> Option<&'static str> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let Some(target) = (if path.is_empty() { Some(file.to_owned()) } else { resolve(file, path) }) else {
        return Some("leads out of the repository");
    };
    let is_folder = || files.iter().any(|other| other.starts_with(&target));
    if !files.contains(&target) && !is_folder() {
        return Some("there is no such file");
    }
    match (anchor, pages.get(&target)) {
        (Some(anchor), Some(page)) if !page.anchors.contains(anchor) => Some("there is no such heading"),
        _ => None,
    }
}

/// The path within the repository that a link of `file` names.
fn resolve(file: &Path, link: &str) -> Option<PathBuf> {
    let mut path = file.parent()?.to_owned();
    for component in Path::new(link).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let paths: BTreeSet<PathBuf> = files.iter().map(|(name, _)| PathBuf::from(name)).collect();
        let markdown = files.iter().filter(|(name, _)| is_markdown(Path::new(name)));
        let pages = markdown.map(|(name, text)| (PathBuf::from(name), Page::parse(text))).collect();
        problems(&pages, &paths)
    }

    #[test]
    fn links_to_files_folders_and_headings_that_exist_are_fine() {
        let found = check(&[
            ("docs/SUMMARY.md", "- [Errors](errors.md)\n- [ADR](adr/one.md)"),
            (
                "docs/errors.md",
                "# `GetToken`: what it says!\n[up](../README.md) [here](#gettoken-what-it-says)",
            ),
            ("docs/adr/one.md", "[errors](../errors.md#gettoken-what-it-says) [files](../../deploy)"),
            ("README.md", "[book](docs/SUMMARY.md) [x](deploy/x.toml) [site](https://example.com/#x)"),
            ("deploy/x.toml", ""),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn dead_links_and_dead_anchors_are_named() {
        let found = check(&[("a.md", "[x](gone.md) [y](b.md#gone) [z](../out.md)"), ("b.md", "# Here")]);
        assert_eq!(
            found,
            [
                "a.md: gone.md: there is no such file",
                "a.md: b.md#gone: there is no such heading",
                "a.md: ../out.md: leads out of the repository"
            ]
        );
    }

    #[test]
    fn a_page_that_the_summary_leaves_out_is_named() {
        let found = check(&[("docs/SUMMARY.md", "[a](a.md)"), ("docs/a.md", ""), ("docs/b.md", "")]);
        assert_eq!(found, ["docs/b.md: is not in docs/SUMMARY.md"]);
    }

    #[test]
    fn links_in_code_are_text() {
        assert_eq!(check(&[("a.md", "`[x](gone.md)`\n\n```\n[x](gone.md)\n```\n")]), Vec::<String>::new());
    }

    #[test]
    fn a_heading_that_comes_twice_has_two_anchors() {
        assert_eq!(check(&[("a.md", "# One\n# One\n[x](#one) [y](#one-1)")]), Vec::<String>::new());
        assert_eq!(check(&[("a.md", "# One\n[y](#one-1)")]).len(), 1);
    }
}
