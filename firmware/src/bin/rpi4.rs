#![no_std]
#![no_main]
use firmware as _;
