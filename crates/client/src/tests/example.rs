use super::fake::{FakeServer, token};

/// Where cargo puts examples: beside the folder of the test binaries.
fn example() -> tokio::process::Command {
    let binary = std::env::current_exe().unwrap();
    let path = binary.parent().and_then(std::path::Path::parent).unwrap().join("examples/get_token");
    tokio::process::Command::new(path)
}

#[tokio::test]
async fn the_example_runs_against_a_server_and_shows_no_secret() {
    let server = FakeServer::start().await;
    server.script.push(token("access-hunter2", 1800));
    server.script.push(token("access-hunter2", 1800));
    let folder = tempfile::tempdir().unwrap();
    let caller_token = folder.path().join("token");
    std::fs::write(&caller_token, "caller-hunter2").unwrap();
    let ready = folder.path().join("ready.json");
    let content = serde_json::json!({
        "grpc": server.url(), "caller_token": "caller-hunter2",
        "tenant_id": "acme", "provider": "hubspot", "scopes": ["read"],
    });
    std::fs::write(&ready, content.to_string()).unwrap();

    let by_words =
        example().arg(server.url()).arg(&caller_token).args(["acme", "read"]).output().await.unwrap();
    let by_file = example().arg("--ready-file").arg(&ready).output().await.unwrap();
    for output in [by_words, by_file] {
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{text}");
        assert!(text.contains("connection:  con_1") && text.contains("(from the cache)"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(server.script.calls(), 2, "one call a run");
    assert!(server.script.requests().iter().all(|request| request.scopes == ["read"]));
}
