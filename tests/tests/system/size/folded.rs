//! The results of hundreds of machines as few.

use sluice_tests::fake::Behavior;

use super::{MACHINES, Site};

#[test]
fn of_hundreds_of_results_those_that_differ_are_named_with_their_difference() {
    const OLD: [usize; 7] = [4, 40, 99, 100, 101, 250, 300];
    const BROKEN: [usize; 3] = [1, 77, 299];
    let site = Site::start(&Behavior::default());
    for number in 1..=MACHINES {
        let name = Site::name(number);
        let version = if OLD.contains(&number) { "6.1" } else { "6.8" };
        // What is another on every machine keeps none of them apart.
        let time = format!("{:02}:{:02}:07", number / 60, number % 60);
        let says = format!("{name} agent[{number}] at {time}\nkernel {version}\n");
        let exits = i32::from(BROKEN.contains(&number)) * 5;
        let behavior = Behavior::default().says(&says).exits(exits);
        site.crowd.behave(&name, &behavior);
    }
    let job = site.submit(&[]);
    site.until_ended(&job, MACHINES);
    let text = site.sluice(&["job", "show", &job, "--fold"]);
    assert!(
        text.starts_with("290 the same, 7 differ here, 3 here\n"),
        "{text}"
    );
    let folded = site.fleet.list(&["job", "show", &job, "--fold"]);
    let groups = folded[0]["groups"].as_array().expect("groups");
    let machines = |numbers: &[usize]| {
        let names: Vec<_> = numbers.iter().map(|number| Site::name(*number)).collect();
        serde_json::json!(names)
    };
    let shown: Vec<_> = groups
        .iter()
        .map(|group| (&group["count"], &group["state"], &group["exit_code"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&290.into(), &"succeeded".into(), &0.into()),
            (&7.into(), &"succeeded".into(), &0.into()),
            (&3.into(), &"failed".into(), &5.into())
        ]
    );
    assert_eq!(groups[0]["machines"].as_array().map(Vec::len), Some(20));
    assert_eq!(groups[1]["machines"], machines(&OLD));
    assert_eq!(groups[2]["machines"], machines(&BROKEN));
    let diff = groups[1]["diff"].as_str().expect("a difference");
    assert!(
        diff.ends_with(" <machine> agent[<pid>] at <time>\n-kernel 6.8\n+kernel 6.1\n"),
        "{diff}"
    );
    assert_eq!(groups[2]["diff"], "");
}
