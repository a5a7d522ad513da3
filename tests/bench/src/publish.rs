//! Puts a run's tables, plots and figures where people read them: `host/docs/performance.md` and the folder beside it.
//!
//! Owns the marks between which a table stands in the page: `<!-- s1 -->` and `<!-- /s1 -->`, by the table's name. What
//! is between the marks of tables that the run does not have stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::report::Table;

/// Kept whole if it is no longer than this; otherwise the tables only, without the figures of every round.
const JSON_MAX: usize = 600 << 10;

/// What is published.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Order {
    /// What a run kept (`run --json`)
    #[arg(value_name = "FILE")]
    json: PathBuf,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "host/docs/performance.md")]
    page: PathBuf,
}

#[derive(Deserialize)]
struct Kept {
    tables: Vec<(String, Table)>,
}

/// Writes the page, the plots and the figures.
pub(crate) fn run(order: &Order, root: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let text = read(&order.json)?;
    let kept: Kept = serde_json::from_str(&text)?;
    let page = root.join(&order.page);
    let folder = page.with_extension("");
    fs::create_dir_all(&folder)?;
    let place = folder
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut shown = read(&page)?;
    for (name, table) in &kept.tables {
        let drawing = order.json.with_extension(format!("{name}.svg"));
        let has_drawing = drawing.is_file();
        let image = has_drawing.then(|| format!("![{name}]({place}/{name}.svg)"));
        let Some(with) = put(&shown, name, &table.render_with(image.as_deref())) else {
            println!("{name} has no place in {}", page.display());
            continue;
        };
        shown = with;
        if has_drawing {
            fs::copy(&drawing, folder.join(format!("{name}.svg")))?;
        }
    }
    fs::write(&page, shown)?;
    // Notes may say where a balancer's log is.
    let text = text.replace(&root.display().to_string(), ".");
    fs::write(folder.join("run.json"), shortened(&text)?)?;
    Ok(())
}

/// The page with this between the marks of this name; `None` without them.
fn put(page: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{}\n{end}{after}", text.trim_start()))
}

fn shortened(text: &str) -> Result<String> {
    if text.len() <= JSON_MAX {
        return Ok(text.to_owned());
    }
    let mut kept: serde_json::Value = serde_json::from_str(text)?;
    let removed = kept.as_object_mut().and_then(|kept| kept.remove("scenarios"));
    ensure!(removed.is_some(), "the run has no scenarios");
    Ok(serde_json::to_string(&kept)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_between_its_marks_and_nowhere_else() {
        let page = "a\n<!-- s1 -->\nold\n<!-- /s1 -->\nb\n<!-- s10 -->\nstays\n<!-- /s10 -->\n";
        let with = put(page, "s1", "\n### New\n").unwrap();
        let expected = "a\n<!-- s1 -->\n### New\n\n<!-- /s1 -->\nb\n<!-- s10 -->\nstays\n<!-- /s10 -->\n";
        assert_eq!(with, expected);
        // And again, without growing.
        assert_eq!(put(&with, "s1", "\n### New\n").unwrap(), expected);
        assert_eq!(put(page, "s2", "new"), None);
    }

    #[test]
    fn a_long_run_is_kept_without_its_rounds() {
        let figures = "9".repeat(JSON_MAX);
        let text = format!(r#"{{"machine": "m", "scenarios": {{"s1": "{figures}"}}, "tables": []}}"#);
        assert_eq!(shortened(&text).unwrap(), r#"{"machine":"m","tables":[]}"#);
        assert_eq!(shortened("{}").unwrap(), "{}");
    }

    #[test]
    fn the_page_in_the_repository_has_a_place_for_every_scenario() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/docs/performance.md");
        let page = fs::read_to_string(page).unwrap();
        let tables = [
            "summary",
            "s1",
            "s2",
            "s3",
            "s4-down-100k",
            "s4-down-1m",
            "s4-up-100k",
            "s4-up-1m",
            "s5",
            "s6",
            "s7-idle",
            "s7-connections",
            "s7-backends",
            "s8",
            "s9-kept",
            "s9-handshakes",
            "s10",
            "s10-answers",
            "s11",
            "native",
            "beyond-s1",
            "beyond-down-100k",
            "beyond-down-1m",
            "beyond-s5",
        ];
        for name in tables {
            assert!(put(&page, name, "").is_some(), "{name}");
        }
    }
}
