//! Many instances on one host.

use e2e::{Home, wait_for};

use crate::first_light::Hidden;

#[test]
fn two_instances_side_by_side_do_not_meet() {
    let one = Home::new().unwrap();
    let two = Home::new().unwrap();
    let first = one.start_ready().unwrap();
    let second = two.start_ready().unwrap();
    let hidden = Hidden::start();
    for home in [&one, &two] {
        wait_for("the alert", || {
            let path = hidden.path.to_str().unwrap();
            Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path))
        })
        .unwrap();
    }
    hidden.stop();
    assert_eq!(first.stop().unwrap().0.code(), Some(0));
    // The second one goes on as if nothing had happened.
    assert_eq!(two.health().unwrap()["state"], "steady_state");
    assert_eq!(second.stop().unwrap().0.code(), Some(0));
}
