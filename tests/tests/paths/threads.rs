//! Where the threads run that answer calls for tokens.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tokenward_tests::{Database, World};

/// A line of a thread's or process's `status` (proc_pid_status(5)).
fn field(folder: &Path, name: &str) -> String {
    let status = fs::read_to_string(folder.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
}

/// The processors that a thread may use, of a list such as `0-3,8`.
fn processors(folder: &Path) -> BTreeSet<usize> {
    let allowed = field(folder, "Cpus_allowed_list");
    let number = |text: &str| text.parse::<usize>().unwrap();
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(part)..=number(part),
    };
    allowed.split(',').flat_map(range).collect()
}

/// A server with as many threads for the service listener as there are processors.
async fn server(pin: bool) -> World {
    let configure = |settings: &mut tokenward_tests::Settings| {
        let count = processors(Path::new("/proc/self")).len();
        settings.set("server.worker_threads", i64::try_from(count).unwrap());
        settings.set("server.pin_worker_threads", pin);
    };
    World::bare(Database::sqlite(), configure, |_| {}).await
}

/// The processors of each of those threads, which may have just begun.
fn places(world: &World) -> Vec<BTreeSet<usize>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", world.server().process.id())).unwrap();
    let folders = tasks.map(|task| task.unwrap().path());
    let is_service = |folder: &Path| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.starts_with("service-"))
    };
    folders.filter(|folder| is_service(folder)).map(|folder| processors(&folder)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thread_stays_on_a_processor_of_its_own() {
    let all = processors(Path::new("/proc/self"));
    let world = server(true).await;
    let is_so = || {
        let places = places(&world);
        places.len() == all.len()
            && places.iter().all(|place| place.len() == 1)
            && places.iter().flatten().copied().collect::<BTreeSet<_>>() == all
    };
    assert!(world.wait_until(is_so).await, "{:?}", places(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_that_is_switched_off_each_runs_on_any() {
    let all = processors(Path::new("/proc/self"));
    let world = server(false).await;
    assert!(world.wait_until(|| places(&world).len() == all.len()).await);
    assert!(places(&world).into_iter().all(|place| place == all), "{:?}", places(&world));
}
