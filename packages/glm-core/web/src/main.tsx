import { render } from "preact";
import { App } from "./view/App";
import "./style/base.css";
import "./style/layout.css";
import "./style/messages.css";
import "./style/controls.css";
import "./style/fill.css";

render(<App />, document.getElementById("page")!);
