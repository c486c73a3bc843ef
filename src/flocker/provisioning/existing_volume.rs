//! The dataset that already exists for a volume's name.

use flocker_client::{Dataset, UnreadableParts};
use uuid::Uuid;

use super::request::{NewVolume, Volume};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::Snapshot;
use crate::volume::{
    DRIVER_KEY, GENERATION_KEY, Generation, NAME_KEY, Namespace, profile_of, size_of, size_text,
};

/// What Flocker's configuration has for a requested volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// The volume exists, with the requested properties.
    Same(Volume),
    /// It does not exist; this id is free for it.
    Free {
        /// The id of its next generation.
        dataset: Uuid,
        /// That generation.
        generation: Generation,
    },
}

/// Finds the volume in the configuration of `snapshot`.
///
/// Its id is derived from its name and its generation. A deleted dataset ends a generation. Those before `first` are known
/// to be deleted: a control service may list no longer what was deleted long ago. So what exists is found by its metadata.
///
/// # Errors
/// [`Situation::Incompatible`], naming the difference, when a volume of that name exists with another size,
/// profile or origin, or with one that cannot be read. [`Situation::FlockerUnavailable`] when nothing of it can be read.
pub(super) fn find(
    snapshot: &Snapshot,
    driver: &str,
    namespace: &Namespace,
    wanted: &NewVolume,
    first: Generation,
) -> Result<Existing> {
    if let Some(found) = last_live_generation(snapshot, driver, namespace, wanted) {
        return compare(found, driver, wanted).map(Existing::Same);
    }
    let mut generation = first;
    loop {
        let dataset = namespace.dataset_id(&wanted.name, generation);
        match snapshot.dataset(dataset)? {
            Some(found) if found.deleted => generation += 1,
            Some(found) => return compare(found, driver, wanted).map(Existing::Same),
            None => {
                refuse_namesake(snapshot, driver, wanted)?;
                return Ok(Existing::Free { dataset, generation });
            }
        }
    }
}

/// Returns the dataset of the volume that this plugin has created, if it lists one.
fn last_live_generation<'a>(
    snapshot: &'a Snapshot,
    driver: &str,
    namespace: &Namespace,
    wanted: &NewVolume,
) -> Option<&'a Dataset> {
    let of_name = snapshot.live_datasets_with(NAME_KEY, wanted.name.as_str());
    let generations = of_name.into_iter().filter_map(|dataset| {
        let generation: Generation = dataset.metadata.get(GENERATION_KEY)?.parse().ok()?;
        let is_derived = namespace.dataset_id(&wanted.name, generation) == dataset.dataset_id;
        let is_ours = dataset
            .metadata
            .get(DRIVER_KEY)
            .is_some_and(|origin| origin == driver);
        (is_derived && is_ours).then_some((generation, dataset))
    });
    let last = generations.max_by_key(|(generation, _)| *generation);
    last.map(|(_, dataset)| dataset)
}

fn compare(found: &Dataset, driver: &str, wanted: &NewVolume) -> Result<Volume> {
    let dataset = found.dataset_id;
    let size = size_of(found.maximum_size, None);
    let profile = profile_of(&found.metadata);
    // This plugin writes nothing that cannot be read, so another program has created it.
    let unreadable = match found.unreadable {
        UnreadableParts { size: true, .. } => Some("size"),
        UnreadableParts { metadata: true, .. } => Some("metadata"),
        UnreadableParts { .. } => None,
    };
    let difference = if let Some(part) = unreadable {
        format!(
            "another program created it: its {part} in Flocker's configuration cannot be read (the log has the text)"
        )
    } else if found
        .metadata
        .get(DRIVER_KEY)
        .is_none_or(|origin| origin != driver)
    {
        format!("it was created by {}, not by {driver:?}", origin(found))
    } else if !wanted.range.contains(size) {
        let (required_bytes, limit_bytes) = (wanted.range.required_bytes(), wanted.range.limit_bytes());
        format!(
            "it has {size} bytes ({}), requested were required_bytes {required_bytes} and limit_bytes {limit_bytes} \
             (0: open)",
            size_text(size)
        )
    } else if profile != wanted.parameters.profile.as_deref() {
        let text = |profile: Option<&str>| {
            profile.map_or("no profile".to_owned(), |name| format!("profile {name:?}"))
        };
        format!(
            "it has {}, requested was {}",
            text(profile),
            text(wanted.parameters.profile.as_deref())
        )
    } else {
        return Ok(Volume { dataset, size });
    };
    Err(Error::new(
        Situation::Incompatible,
        format!(
            "{wanted}: volume {dataset} has that name, but {difference}; use another name, or request what exists"
        ),
    ))
}

/// Refuses a name that a live dataset of other origin has: Flocker's Docker plugin, which finds datasets by name, would
/// mount either.
fn refuse_namesake(snapshot: &Snapshot, driver: &str, wanted: &NewVolume) -> Result<()> {
    let namesake = snapshot.datasets().find(|dataset| {
        !dataset.deleted
            && dataset
                .metadata
                .get(NAME_KEY)
                .is_some_and(|name| name == wanted.name.as_str())
            && dataset
                .metadata
                .get(DRIVER_KEY)
                .is_none_or(|origin| origin != driver)
    });
    namesake.map_or(Ok(()), |found| {
        let text = format!(
            "{wanted}: dataset {}, created by {}, has that name already; use another name or delete that dataset",
            found.dataset_id,
            origin(found)
        );
        Err(Error::new(Situation::Incompatible, text))
    })
}

fn origin(dataset: &Dataset) -> String {
    dataset
        .metadata
        .get(DRIVER_KEY)
        .map_or("another program".to_owned(), |driver| format!("{driver:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::volume::{Parameters, SizePolicy, SizeRange, VolumeName, metadata};

    const DRIVER: &str = "flocker.csi.clusterhq.com";
    const MIB: u64 = 1 << 20;

    fn request(required: i64, limit: i64, profile: Option<&str>) -> NewVolume {
        let range = SizeRange::parse(required, limit).unwrap();
        let policy = SizePolicy {
            default_size: 10 << 30,
            allocation_unit: MIB,
        };
        let pairs: HashMap<_, _> = profile
            .map(|profile| ("profile".to_owned(), profile.to_owned()))
            .into_iter()
            .collect();
        NewVolume {
            name: VolumeName::parse("pvc-1").unwrap(),
            range,
            size: policy.choose(range).unwrap(),
            parameters: Parameters::parse(&pairs).unwrap(),
        }
    }

    fn made(generation: Generation, by: &NewVolume, deleted: bool) -> Dataset {
        Dataset {
            dataset_id: Namespace::new(DRIVER).dataset_id(&by.name, generation),
            primary: Uuid::from_u128(1),
            deleted,
            maximum_size: Some(by.size),
            metadata: metadata(DRIVER, &by.name, generation, &by.parameters).unwrap(),
            unreadable: flocker_client::UnreadableParts::default(),
        }
    }

    fn find_among(datasets: Vec<Dataset>, wanted: &NewVolume) -> Result<Existing> {
        find(
            &Snapshot::of(datasets, vec![], &[], vec![]),
            DRIVER,
            &Namespace::new(DRIVER),
            wanted,
            0,
        )
    }

    #[test]
    fn a_new_volume_gets_the_first_generation_that_was_not_deleted() {
        let wanted = request(0, 0, None);
        let free = |generation| Existing::Free {
            dataset: Namespace::new(DRIVER).dataset_id(&wanted.name, generation),
            generation,
        };
        assert_eq!(find_among(vec![], &wanted).unwrap(), free(0));
        let tombstones = vec![made(0, &wanted, true), made(1, &wanted, true)];
        assert_eq!(find_among(tombstones, &wanted).unwrap(), free(2));
    }

    #[test]
    fn a_volume_is_found_although_the_deleted_ones_before_are_not_listed() {
        let wanted = request(0, 0, None);
        let of = |generation| {
            let volume = made(generation, &wanted, false);
            Existing::Same(Volume {
                dataset: volume.dataset_id,
                size: wanted.size,
            })
        };
        assert_eq!(find_among(vec![made(7, &wanted, false)], &wanted).unwrap(), of(7));
        let other_namespace = Dataset {
            dataset_id: Namespace::new("other").dataset_id(&wanted.name, 9),
            ..made(9, &wanted, false)
        };
        assert_eq!(
            find_among(vec![made(7, &wanted, false), other_namespace], &wanted).unwrap(),
            of(7)
        );
        let listed = Snapshot::of(vec![made(5, &wanted, true)], vec![], &[], vec![]);
        let free = find(&listed, DRIVER, &Namespace::new(DRIVER), &wanted, 5).unwrap();
        assert!(matches!(free, Existing::Free { generation: 6, .. }), "{free:?}");
    }

    #[test]
    fn a_volume_within_the_range_and_of_the_same_profile_is_the_same() {
        let first = request(100 << 20, 0, Some("gold"));
        let existing = made(0, &first, false);
        let same = Existing::Same(Volume {
            dataset: existing.dataset_id,
            size: 100 * MIB,
        });
        for again in [
            first.clone(),
            request(0, 0, Some("gold")),
            request(64 << 20, 128 << 20, Some("gold")),
        ] {
            assert_eq!(find_among(vec![existing.clone()], &again).unwrap(), same);
        }
    }

    #[test]
    fn any_other_volume_of_the_name_is_refused_with_the_difference() {
        let first = request(100 << 20, 100 << 20, Some("gold"));
        let existing = made(0, &first, false);
        let foreign = Dataset {
            metadata: [(NAME_KEY.to_owned(), "pvc-1".to_owned())].into(),
            ..existing.clone()
        };
        let elsewhere = Dataset {
            dataset_id: Uuid::from_u128(7),
            ..foreign.clone()
        };
        let cases = [
            (
                existing.clone(),
                request(200 << 20, 200 << 20, Some("gold")),
                "104857600 bytes (100 MiB)",
            ),
            (
                existing.clone(),
                request(64 << 20, 99 << 20, Some("gold")),
                "limit_bytes 103809024",
            ),
            (
                existing.clone(),
                request(0, 0, None),
                "it has profile \"gold\", requested was no profile",
            ),
            (
                existing,
                request(0, 0, Some("silver")),
                "requested was profile \"silver\"",
            ),
            (foreign, first.clone(), "created by another program"),
            (
                elsewhere.clone(),
                first.clone(),
                "dataset 00000000-0000-0000-0000-000000000007",
            ),
        ];
        for (existing, wanted, part) in cases {
            let error = find_among(vec![existing], &wanted).unwrap_err();
            assert_eq!(error.situation(), Situation::Incompatible);
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        let deleted = Dataset {
            deleted: true,
            ..elsewhere
        };
        assert!(matches!(
            find_among(vec![deleted], &first).unwrap(),
            Existing::Free { .. }
        ));
    }
}
