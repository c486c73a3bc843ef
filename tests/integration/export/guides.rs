//! Runs the command lines of the guides, one after the other.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use super::{Ended, handle, reached, run, volume};
use crate::deploy::pages::blocks;
use crate::names::declare;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

/// The control service's address in the guides.
const ADDRESS: &str = "https://control.example.com:4523";

/// Replaces programs that need a cluster: records its arguments and its input, and answers from files.
const STAND_IN: &str = r#"#!/bin/bash
call="$(basename "$0") $*"
printf '%s\n' "$call" >> calls
case $call in
    *" -f -") cat > "given-$(wc -l < calls)" ;;
    "kubectl get pv -o jsonpath="*) printf 'pg pvc-1' ;;
    "kubectl get pv pg pvc-1 -o yaml") cat volumes ;;
    "kubectl get pvc "*) cat claims ;;
    "kubectl get -f volumes.yaml -o name")
        printf '%s\n' persistentvolume/{my-db,web} persistentvolumeclaim/{my-db,web} ;;
esac
"#;

/// The policy that keeps the data of a deleted volume.
const RETAIN: &str = r#"{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}"#;

/// A directory in which the commands of a guide run.
struct Desk(PathBuf);

impl Desk {
    fn new(flocker: &Flocker) -> Self {
        let directory = flocker.path().join("desk");
        fs::create_dir_all(directory.join("bin")).unwrap();
        for name in ["kubectl", "docker", "systemctl"] {
            let program = directory.join("bin").join(name);
            fs::write(&program, STAND_IN).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        }
        symlink(
            env!("CARGO_BIN_EXE_flocker-csi"),
            directory.join("bin/flocker-csi"),
        )
        .unwrap();
        Self(directory)
    }

    /// Runs every block of a guide; the first command that fails ends it.
    async fn follow(&self, guide: &str, flocker: &Flocker) -> Ended {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(guide);
        let commands = blocks(&fs::read_to_string(path).unwrap(), "sh").join("\n");
        assert!(commands.contains(ADDRESS), "{commands}");
        let [(_, address), certificates @ ..] = reached(flocker);
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &commands.replace(ADDRESS, &address)])
            .current_dir(&self.0)
            .env("PATH", format!("{}:/usr/bin:/bin", self.0.join("bin").display()))
            .envs(certificates);
        run(bash, "").await
    }

    fn calls(&self) -> Vec<String> {
        self.text("calls").lines().map(str::to_owned).collect()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn objects(&self, name: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(&self.text(name)).unwrap()
    }

    /// Returns the standard input of a recorded call.
    fn given(&self, call: usize) -> Vec<Value> {
        self.objects(&format!("given-{}", call + 1))
    }
}

#[test]
fn the_commands_of_the_guide_for_kubernetes_old_plugin_bring_volumes_over_and_back() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let named = declare(&flocker, 1, &[("name", "pg")]).await;
        let provisioned = declare(&flocker, 1, &[("type", "k8s-dynamic-prov"), ("pvc", "data")]).await;
        declare(&flocker, 1, &[("name", "web")]).await;
        let desk = Desk::new(&flocker);
        let list = |items: &[Value]| {
            serde_saphyr::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": items})).unwrap()
        };
        let mut olds = [
            volume("pg", &json!({"datasetName": "pg"})),
            volume("pvc-1", &json!({"datasetUUID": provisioned})),
        ];
        for old in &mut olds {
            old["metadata"]["uid"] = "5f8a2d2c-5b0f-4c9c-9d3f-0d0a1f7a2a11".into();
            old["metadata"]["annotations"] = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
        }
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "pg-data", "namespace": "apps", "uid": "0b9c6d52-9f0c-4a4e-8a0b-3f2d6e5c4b3a",
                "annotations": {"pv.kubernetes.io/bind-completed": "yes", "team": "db"}},
            "spec": {"volumeName": "pg"}});
        fs::write(desk.0.join("volumes"), list(&olds)).unwrap();
        fs::write(desk.0.join("claims"), list(&[claim])).unwrap();

        let ended = desk.follow("docs/from-kubernetes-in-tree.md", &flocker).await;
        assert_eq!(
            (ended.code, ended.said.as_slice()),
            (Some(0), &[][..]),
            "{ended:?}"
        );
        let calls = desk.calls();
        let place = |call: &str| {
            let place = calls.iter().position(|made| made == call);
            place.unwrap_or_else(|| panic!("{call} is not among {calls:#?}"))
        };
        let order = [
            place("kubectl --namespace apps scale statefulset/pg --replicas=0"),
            place("kubectl delete --ignore-not-found -f new-volumes.yaml"),
            place("kubectl create -f new-volumes.yaml"),
            place("kubectl apply -f -"),
            place("kubectl --namespace apps scale statefulset/pg --replicas=1"),
            place("kubectl delete -f new-volumes.yaml"),
            place("kubectl create -f -"),
        ];
        let retain = format!("kubectl patch pv pg pvc-1 --patch {RETAIN}");
        assert!(place(&retain) < order[0], "{calls:#?}");
        for delete in [order[1], order[5]] {
            assert_eq!(calls[delete - 1], retain, "what is deleted is retained");
        }
        assert!(order.is_sorted(), "{calls:#?}");

        let new = desk.objects("new-volumes.yaml");
        let kinds: Vec<_> = new
            .iter()
            .map(|object| object["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["PersistentVolume", "PersistentVolumeClaim"].repeat(2));
        assert_eq!((handle(&new[0]), handle(&new[2])), (named, provisioned));
        assert_eq!(
            new[1]["metadata"],
            json!({"name": "pg-data", "namespace": "apps"})
        );
        let inline = desk.objects("inline-volumes.yaml");
        assert_eq!(inline[1]["metadata"], json!({"name": "web", "namespace": "apps"}));

        assert_eq!(
            desk.given(order[3])[0]["provisioner"],
            "flocker.csi.clusterhq.com"
        );
        let back = &desk.given(order[6])[0]["items"];
        for (back, old) in back.as_array().unwrap().iter().zip(&olds) {
            assert_eq!(back["spec"]["flocker"], old["spec"]["flocker"]);
            assert_eq!(
                back["metadata"],
                json!({"name": old["metadata"]["name"], "annotations": null})
            );
            let claimed = back["spec"]["claimRef"].as_object().unwrap();
            assert_eq!(claimed.keys().collect::<Vec<_>>(), ["kind", "name", "namespace"]);
        }
        let claim = &desk.given(order[6] + 1)[0]["items"][0];
        let metadata = json!({"name": "pg-data", "namespace": "apps", "annotations": {"team": "db"}});
        assert_eq!(claim["metadata"], metadata);
    });
}

#[test]
fn without_volumes_the_guide_changes_no_other_objects() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let desk = Desk::new(&flocker);
        fs::write(desk.0.join("old-volumes.yaml"), "saved before").unwrap();
        let stand_in = desk.0.join("bin/kubectl");
        let none = STAND_IN.replace("printf 'pg pvc-1'", "true");
        fs::write(&stand_in, none).unwrap();
        let ended = desk.follow("docs/from-kubernetes-in-tree.md", &flocker).await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.said.iter().any(|said| said.contains("volumes: ")),
            "{ended:?}"
        );
        assert_eq!(desk.calls().len(), 1, "{:#?}", desk.calls());

        // With volumes, but a second time: the saved files stay.
        fs::write(&stand_in, STAND_IN).unwrap();
        let ended = desk.follow("docs/from-kubernetes-in-tree.md", &flocker).await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert_eq!(desk.text("old-volumes.yaml"), "saved before");
    });
}

#[test]
fn the_commands_of_the_guide_for_the_docker_plugin_make_volumes_with_claims() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let web = declare(&flocker, 1, &[("name", "web"), ("maximum_size", "67108864")]).await;
        let my_db = declare(&flocker, 1, &[("name", "my_db")]).await;
        let desk = Desk::new(&flocker);
        let ended = desk.follow("docs/from-flocker-docker-plugin.md", &flocker).await;
        assert_eq!((ended.code, ended.said.len()), (Some(0), 2), "{ended:?}");
        for said in &ended.said {
            assert!(said.contains("dataset") && said.contains("is my-db"), "{said}");
        }
        let listed: Vec<Value> = serde_saphyr::from_multiple(&ended.text).unwrap();
        let written = desk.objects("volumes.yaml");
        assert_eq!(listed, written);
        let mut found: Vec<_> = written
            .iter()
            .step_by(2)
            .map(|volume| (handle(volume), &volume["metadata"]["name"]))
            .collect();
        found.sort_by_key(|(_, name)| name.to_string());
        assert_eq!(found, [(my_db, &json!("my-db")), (web, &json!("web"))]);
        let last = [
            format!("kubectl patch persistentvolume/my-db persistentvolume/web --patch {RETAIN}"),
            "kubectl delete -f volumes.yaml".to_owned(),
        ];
        assert!(desk.calls().ends_with(&last), "{:#?}", desk.calls());
    });
}
