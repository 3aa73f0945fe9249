//! Both ends over loopback, and hostile ones made of bare quinn.

mod chains;
mod exchange;
mod fixture;
mod frames;
mod hosts;
mod limits;
mod messages;
mod raw;
mod streams;
mod turns;
