package dev.tfcompress.demo.screen

import android.app.Activity
import android.content.Intent
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Spinner
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import dev.tfcompress.demo.Demo
import dev.tfcompress.demo.R
import dev.tfcompress.demo.runtime.Accelerator

/** A screen that shows the desk's state for as long as it is seen. */
abstract class Screen : Activity() {
    protected val desk: Desk get() = (application as Demo).desk
    protected val texts: Texts by lazy { Texts(resources) }
    private val watcher: (State) -> Unit = { render(it) }

    protected abstract fun show(state: State)

    override fun onStart() {
        super.onStart()
        desk.watch(watcher)
        desk.start()
    }

    override fun onStop() {
        desk.unwatch(watcher)
        super.onStop()
    }

    private fun render(state: State) {
        val summary = findViewById<TextView>(R.id.summary)
        val manifest = state.bundle?.manifest
        summary.text = state.busy ?: when {
            !state.ready -> getString(R.string.looking)
            manifest == null -> if (state.error == null) getString(R.string.no_bundle) else ""
            else -> getString(R.string.bundle_summary, manifest.name, manifest.models.size, manifest.rows)
        }
        findViewById<View>(R.id.busy).visibility = if (state.busy == null) View.INVISIBLE else View.VISIBLE
        findViewById<TextView>(R.id.error).apply {
            text = state.error.orEmpty()
            visibility = if (state.error == null) View.GONE else View.VISIBLE
        }
        show(state)
    }

    /** The models of the bundle in a list; what is picked goes to place [place] of the desk. */
    protected fun models(id: Int, state: State, place: Int) {
        val names = state.bundle?.manifest?.models.orEmpty().map { if (it.precision in listOf("", it.name)) it.name else "${it.name} (${it.precision})" }
        choices(id, names, state.picks[place].model, state) { desk.pick(place, desk.state.picks[place].copy(model = it)) }
    }

    protected fun accelerators(id: Int, state: State, place: Int) {
        val names = Accelerator.entries.map {
            val name = texts.accelerator(it)
            if (it in state.missing) getString(R.string.unavailable, name) else name
        }
        choices(id, names, state.picks[place].accelerator.ordinal, state) {
            desk.pick(place, desk.state.picks[place].copy(accelerator = Accelerator.entries[it]))
        }
    }

    protected fun choices(id: Int, names: List<String>, chosen: Int, state: State, picked: (Int) -> Unit) {
        val spinner = findViewById<Spinner>(id)
        spinner.onItemSelectedListener = null
        if (spinner.tag != names) {
            spinner.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_item, names).apply {
                setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
            }
            spinner.tag = names
        }
        if (spinner.selectedItemPosition != chosen) spinner.setSelection(chosen, false)
        spinner.isEnabled = state.busy == null
        spinner.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = picked(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
    }

    protected fun table(rows: List<Pair<String, List<String>>>) {
        val table = findViewById<TableLayout>(R.id.figures)
        table.removeAllViews()
        for ((heading, cells) in rows) {
            val row = TableRow(this)
            (listOf(heading) + cells).forEachIndexed { column, text ->
                val cell = inflate(R.layout.figure, row) as TextView
                cell.text = text
                if (column == 0) cell.setTextColor(getColor(R.color.faint))
                row.addView(cell)
            }
            table.addView(row)
        }
    }

    protected fun inflate(layout: Int, parent: ViewGroup): View = LayoutInflater.from(this).inflate(layout, parent, false)

    protected fun share(json: String) {
        val send = Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, json)
        startActivity(Intent.createChooser(send, getString(R.string.share)))
    }
}
