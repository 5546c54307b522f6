//! An agent that lets everybody do everything.

use daemoneye_eventbus::{Authority, Peer};
use daemoneye_lib::proto::{Fault, Hello, Register, Registered, Role, Sequence};

pub(crate) struct Everybody;

impl Authority for Everybody {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        Ok(hello.role())
    }
    fn committed(&self, _collector: &str) -> Option<Sequence> {
        None
    }
    fn register(&self, _register: &Register) -> Result<Registered, Fault> {
        Ok(Registered::default())
    }
    fn deregister(&self, _collector: &str) {}
}
