import { mount } from "svelte";
import { sayUnreachable } from "./api";
import App from "./App.svelte";
import "./page.css";
import { say } from "./words";

sayUnreachable(() => say().common.unreachable);
mount(App, { target: document.getElementById("page")! });
