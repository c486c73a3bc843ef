//! `volumes`, `nodes` and `leases`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{end, run};
use crate::names::declare;
use crate::node::Fixture;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::program;

/// Runs `volumes`, and returns the volumes that it prints.
async fn volumes(machine: &Machine, filters: &[&str]) -> Vec<Value> {
    let ended = run(machine, &[&["volumes", "--output=json"], filters].concat()).await;
    ended.assert_code(0);
    ended.document("volumes")["volumes"].as_array().unwrap().clone()
}

fn named<'a>(listed: &'a [Value], key: &str, name: &str) -> &'a Value {
    let found = listed.iter().find(|entry| entry[key] == name);
    found.unwrap_or_else(|| panic!("{name} in {listed:#?}"))
}

#[test]
fn volumes_say_where_they_are_who_holds_the_lease_and_what_is_used_here() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        let used = fixture.published("used").await;
        let attached = fixture.attached("attached").await;
        let claimed = declare(
            flocker,
            2,
            &[
                ("name", "claimed"),
                ("csi.storage.k8s.io/pvc/name", "data"),
                ("csi.storage.k8s.io/pvc/namespace", "default"),
                ("clusterhq:flocker:profile", "gold"),
            ],
        )
        .await;
        flocker.reports(2, claimed).await;
        flocker.reports(1, attached.dataset()).await;
        flocker
            .client()
            .await
            .acquire_lease(claimed, flocker.node(2), None)
            .await
            .unwrap();

        let listed = volumes(machine, &[]).await;
        let names: Vec<_> = listed
            .iter()
            .map(|volume| volume["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["attached", "claimed", "used"]);
        let volume = named(&listed, "name", "used");
        assert_eq!(volume["id"], used.volume_id);
        assert_eq!(volume["size"], 64 << 20);
        assert_eq!(volume["primary"]["uuid"], machine.node().to_string());
        assert_eq!(volume["primary"]["host"], "127.0.0.1");
        assert_eq!(volume["lease"]["holder"]["uuid"], machine.node().to_string());
        assert!(volume["lease"]["since"].as_str().unwrap().ends_with('Z'));
        assert_eq!(volume["here"]["published"], json!([used.target]));
        assert_eq!(volume["here"]["staged"][0]["path"], json!(used.staging));
        assert_eq!(volume["here"]["staged"][0]["state"], "staged");
        assert_eq!(
            volume["here"]["flocker_mount"],
            json!(flocker.mount_of(1, used.dataset()))
        );
        assert_eq!(volume["condition"]["name"], "mounted");
        assert_eq!(volume["leased_but_unused"], false);
        let volume = named(&listed, "name", "claimed");
        assert_eq!(volume["claim"], json!({"namespace": "default", "name": "data"}));
        assert_eq!(volume["profile"], "gold");
        assert_eq!(volume["lease"]["holder"]["uuid"], flocker.node(2).to_string());
        assert_eq!(volume["here"]["staged"], json!([]));

        let names = async |filters: &[&str]| -> Vec<String> {
            let listed = volumes(machine, filters).await;
            listed
                .iter()
                .map(|volume| volume["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&["--node=127.0.0.2"]).await, ["claimed"]);
        assert_eq!(
            names(&["--node", &machine.node().to_string()]).await,
            ["attached", "used"]
        );
        assert_eq!(names(&["--name=us"]).await, ["used"]);
        assert_eq!(names(&["--condition=abnormal"]).await, [""; 0]);
        assert_eq!(names(&["--leased-but-unused"]).await, ["attached"]);

        let table = run(machine, &["volumes", "--name=used"]).await;
        let lines: Vec<_> = table.assert_code(0).text.lines().collect();
        assert!(lines[0].starts_with("ID  ") && lines.len() == 2, "{table:?}");
        let cells: Vec<_> = lines[1].split_whitespace().collect();
        let node = "127.0.0.1";
        assert_eq!(
            cells[..7],
            [&used.volume_id, "used", "64", "MiB", "-", node, node]
        );
        assert_eq!(cells[8..], ["published", "mounted", "-"]);
        let nothing = run(machine, &["volumes", "--name=nothing"]).await;
        assert_eq!((nothing.code, nothing.text.as_str()), (Some(0), ""));
        nothing.assert_said(&["flocker-csi: no volume matches"]);

        flocker
            .client()
            .await
            .release_lease(used.dataset())
            .await
            .unwrap();
        let lost = volumes(machine, &["--condition=lease-lost"]).await;
        assert_eq!(named(&lost, "name", "used")["condition"]["abnormal"], true);
    });
}

#[test]
fn nodes_are_counted_and_one_of_them_is_this_machine() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        fixture.attached("one").await;
        let missing = Uuid::new_v4();
        let elsewhere = declare(flocker, 2, &[("name", "two")]).await;
        flocker
            .client()
            .await
            .acquire_lease(elsewhere, missing, None)
            .await
            .unwrap();
        let ended = run(machine, &["nodes", "--output=json"]).await;
        let listed = ended.document("nodes")["nodes"].as_array().unwrap().clone();
        assert_eq!(listed.len(), 3);
        for (number, volumes, leases) in [(1, 1, 1), (2, 1, 0)] {
            let node = named(&listed, "uuid", &flocker.node(number).to_string());
            assert_eq!(node["host"], format!("127.0.0.{number}"));
            assert_eq!(
                (&node["volumes"], &node["leases"]),
                (&json!(volumes), &json!(leases))
            );
            assert_eq!(node["this_machine"], number == 1);
            assert_eq!(
                node["known_by"],
                if number == 1 {
                    json!("node_id")
                } else {
                    json!(null)
                }
            );
        }
        let node = named(&listed, "uuid", &missing.to_string());
        assert_eq!((&node["listed"], &node["leases"]), (&json!(false), &json!(1)));
        let table = run(machine, &["nodes"]).await;
        assert!(
            table.text.contains("yes: the setting node_id names it"),
            "{table:?}"
        );
        assert!(
            table.text.lines().last().unwrap().contains("missing"),
            "{table:?}"
        );
    });
}

#[test]
fn leases_say_who_holds_them_and_whether_they_are_used_here() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        let used = fixture.staged("used").await;
        let other = declare(flocker, 2, &[("FLOCKER_ID", "other")]).await;
        flocker
            .client()
            .await
            .acquire_lease(other, flocker.node(2), Some(3600.0))
            .await
            .unwrap();
        let ended = run(machine, &["leases", "--output=json"]).await;
        let listed = ended.document("leases")["leases"].as_array().unwrap().clone();
        let lease = named(&listed, "name", "used");
        assert_eq!(
            (&lease["used_here"], &lease["expires_in"]),
            (&json!(true), &json!(null))
        );
        assert!(lease["since"].is_string());
        assert_eq!(lease["volume"], used.volume_id);
        let lease = named(&listed, "name", "other");
        assert_eq!(
            (&lease["used_here"], &lease["since"]),
            (&json!(false), &json!(null))
        );
        assert!(lease["expires_in"].as_f64().unwrap() > 3000.0);
        let table = run(machine, &["leases", "--node=127.0.0.2"]).await;
        assert_eq!(table.text.lines().count(), 2, "{table:?}");
        assert!(
            table.text.contains("in 59 min") && table.text.ends_with("no\n"),
            "{table:?}"
        );
    });
}

#[test]
fn settings_are_read_from_the_plugins_file_and_its_log_level_is_the_plugins() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let settings: Vec<_> = fixture.machine.flags();
        let toml = settings.iter().map(|flag| {
            let (key, value) = flag.trim_start_matches("--").split_once('=').unwrap();
            let quoted = if ["true", "false"].contains(&value) {
                value.to_owned()
            } else {
                format!("{value:?}")
            };
            format!("{} = {quoted}\n", key.replace('-', "_"))
        });
        let file = fixture.machine.path("plugin.toml");
        let toml = format!("{}log = \"debug\"\n", toml.collect::<String>());
        std::fs::write(&file, toml).unwrap();
        let mut command = program(&["nodes", "--output=json", "--config"]);
        command.arg(&file);
        let ended = end(command).await;
        ended.assert_code(0);
        assert_eq!(ended.document("nodes")["nodes"][0]["this_machine"], true);
        assert_eq!(ended.said, "");
        let mut command = program(&["volumes", "--config"]);
        command.arg(&file).env("FLOCKER_CSI_NAME", "x");
        end(command)
            .await
            .assert_code(0)
            .assert_said(&["FLOCKER_CSI_NAME is not a setting"]);
    });
}

#[test]
fn a_flocker_that_cannot_be_read_or_a_node_that_does_not_exist_fails_the_command() {
    in_own_namespace(|| async {
        let mut fixture = Fixture::start(2).await;
        let unknown = run(&fixture.machine, &["volumes", "--node=10.0.0.9"]).await;
        unknown.assert_code(1).assert_said(&[
            "\"10.0.0.9\" is no node of Flocker; Flocker lists 127.0.0.",
            "127.0.0.1 (",
            "127.0.0.2 (",
        ]);
        fixture.flocker.stop().await;
        for command in ["volumes", "nodes", "leases"] {
            let ended = run(&fixture.machine, &[command]).await;
            ended
                .assert_code(1)
                .assert_said(&["cannot read the state of the cluster from Flocker"]);
            assert_eq!(ended.text, "");
        }
        let missing = run(&fixture.machine, &["nodes", "--user-key=/nowhere/plugin.key"]).await;
        missing.assert_code(2).assert_said(&["/nowhere/plugin.key"]);
    });
}
