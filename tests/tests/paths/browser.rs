//! A customer's path in a real browser.

use serde_json::{Value, json};
use tokenward_tests::{Database, Script, World, parts};

/// What a person does, and how wide the window is.
struct Visit {
    javascript: bool,
    decisions: &'static [&'static str],
    width: u32,
}

/// Walks the flow; `None` where there is no browser.
async fn visit(world: &World, visit: Visit) -> Option<Value> {
    let chromium = parts::chromium()?;
    let node = parts::node_folder()?;
    world.set_up_tenant("acme").await;
    let input = json!({
        "chromium": chromium,
        "link": world.connect_link("acme").await,
        "javascript": visit.javascript,
        "decisions": visit.decisions,
        "width": visit.width,
        "account": World::HUB_ID,
        // Pictures for people: TOKENWARD_TEST_PICTURES names a folder.
        "pictures": std::env::var("TOKENWARD_TEST_PICTURES").ok(),
    });
    Some(Script::node(&node, "connect.cjs").run(&input).await)
}

fn check_pages(seen: &Value, names: &[&str]) {
    assert_eq!(seen["complaints"], json!([]), "the browser complained");
    let pages = seen["pages"].as_array().unwrap();
    let seen_names: Vec<&str> = pages.iter().map(|page| page["name"].as_str().unwrap()).collect();
    assert_eq!(seen_names, names);
    for page in pages {
        assert_eq!(page["lang"], "en", "{page}");
        assert_eq!(page["mains"], 1, "{page}");
        assert_eq!(page["overflow"], false, "it scrolls sideways: {page}");
        assert!(!page["title"].as_str().unwrap().is_empty(), "{page}");
        assert_eq!(page["headings"].as_array().unwrap().len(), 1, "{page}");
        if page["name"].as_str().unwrap().starts_with("result") {
            let url = page["url"].as_str().unwrap();
            assert!(!url.contains("code=") && !url.contains("state="), "{url}");
        }
    }
    // Who asks, and for whom.
    let text = pages[0]["text"].as_str().unwrap();
    assert!(text.contains("Demo Integration") && text.contains("acme"), "{text}");
}

async fn a_customer_connects(visit_as: Visit) {
    let world = World::start(Database::sqlite()).await;
    let Some(seen) = visit(&world, visit_as).await else { return };
    check_pages(&seen, &["link", "consent", "result-grant"]);
    let result = &seen["pages"][2];
    assert_eq!(result["headings"], json!(["HubSpot is connected"]));
    let token = world.get_token("acme").await.unwrap();
    assert_eq!(token.account_id, World::HUB_ID.to_string());
    assert!(world.sim.handle().is_access_token_live(&token.access_token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_connects_in_a_browser() {
    a_customer_connects(Visit { javascript: true, decisions: &["grant"], width: 1280 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_connects_without_javascript_on_a_narrow_screen() {
    a_customer_connects(Visit { javascript: false, decisions: &["grant"], width: 360 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_who_declines_is_told_so_and_can_open_the_link_again() {
    let world = World::start(Database::sqlite()).await;
    let decisions = &["cancel", "grant"];
    let Some(seen) = visit(&world, Visit { javascript: true, decisions, width: 1280 }).await else { return };
    check_pages(&seen, &["link", "consent", "result-cancel", "link", "consent", "result-grant"]);
    let declined = seen["pages"][2]["text"].as_str().unwrap();
    assert!(declined.contains("What you can do"), "{declined}");
    world.get_token("acme").await.unwrap();
}
