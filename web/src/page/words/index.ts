// Every sentence of the page, in the language of the reader.

import { house } from "../state.svelte";
import * as common from "./common";
import * as explore from "./explore";
import * as lab from "./lab";
import * as read from "./read";
import * as runs from "./runs";
import * as saved from "./saved";
import * as write from "./write";

const pages = { common, explore, write, read, runs, lab, saved };
type Pages = typeof pages;
type Catalogue = { [Page in keyof Pages]: Pages[Page]["en"] };

const inLanguage = (language: "en" | "de"): Catalogue =>
  Object.fromEntries(Object.entries(pages).map(([name, page]) => [name, page[language]])) as Catalogue;

const catalogues = { en: inLanguage("en"), de: inLanguage("de") };

/** The catalogue of the current language; read it where it is shown, so that it follows. */
export const say = (): Catalogue => catalogues[house.language];
